#!/usr/bin/python3
"""mesh.py HOST PORT lookup NAME... | introspect | watch [GLOB] - asks a meshd with a socket and protobuf.

Debian: apt-get install python3-protobuf protobuf-compiler, then once, beside mesh.proto's folder meshd/,
protoc -I proto --python_out=. meshd/v1/mesh.proto; PYTHONPATH=. python3 mesh.py 127.0.0.1 7400 introspect
With PEER_TLS_CA, PEER_TLS_CERT and PEER_TLS_KEY set (PEM files) it speaks TLS, as a node with TLS demands.
"""
import os
import socket
import ssl
import struct
import sys

from meshd.v1 import mesh_pb2 as mesh

REQUEST_ID, HOPS = b"\x80\0\0\1", b"\0\0\0\1"  # in front of what travels: of calls (SP REQ), of a watch (PAIR1)


def connect(host, port):
    plain, ca = socket.create_connection((host, int(port)), timeout=10), os.environ.get("PEER_TLS_CA")
    if not ca:
        return plain.makefile("rwb")
    context = ssl.create_default_context(cafile=ca)
    context.check_hostname = False  # certificates name peer ids, and any node of the mesh will do
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["meshd/1"])
    context.load_cert_chain(os.environ["PEER_TLS_CERT"], os.environ["PEER_TLS_KEY"])
    return context.wrap_socket(plain).makefile("rwb")


def receive(stream, size):
    data = stream.read(size)
    if len(data) < size:
        sys.exit("the node closed the connection")
    return data


def send(stream, word, method, request):
    header = mesh.CallHeader(method="/meshd.v1.Registry/" + method, call_id=1, deadline_ms=5000,
                             wire_version=1).SerializeToString()
    frame = word + bytes([len(header)]) + header + request.SerializeToString()  # below 128: a varint of one byte
    stream.write(struct.pack(">Q", len(frame)) + frame)
    stream.flush()


def answer(stream, reply):
    frame = receive(stream, struct.unpack(">Q", receive(stream, 8))[0])
    size, at = (frame[4], 5) if frame[4] < 128 else (frame[4] - 128 + frame[5] * 128, 6)  # a varint
    header = mesh.ReplyHeader.FromString(frame[at:at + size])
    if header.status:
        sys.exit(f"status {header.status}: {header.text}")
    return reply.FromString(frame[at + size:])


def lookup(stream, *names):
    send(stream, REQUEST_ID, "Lookup", mesh.LookupRequest(names=names))
    for result in answer(stream, mesh.LookupReply).results:
        for route in result.routes:
            print(result.name, route.backend_addr, route.peer_id, f"({route.ip})")
        if not result.routes:
            print(f"{result.name}: nobody offers it")


def introspect(stream):
    token = None
    while token != b"":  # all pages are of one moment
        send(stream, REQUEST_ID, "Introspect", mesh.IntrospectRequest(page_token=token))
        page = answer(stream, mesh.IntrospectReply)
        token = page.next_page_token
        for row in page.services:
            print(row.key, row.backend_addr, row.peer_id, "connected" if row.connected else "not connected")
        for peer in page.peer_services:
            print("peer", peer.peer_id, peer.peer_ip, *(service.name for service in peer.services))


def watch(stream, glob=""):
    send(stream, HOPS, "Watch", mesh.WatchRequest(name_glob=glob))
    while True:
        news = answer(stream, mesh.WatchReply)  # without events: a sign of life
        if news.resync:
            print("RESYNC: what was told before is void", flush=True)
        for event in news.events:
            print(mesh.WatchKind.Name(event.kind)[11:], event.row.key, event.row.backend_addr, flush=True)
        if news.synced:
            print("SYNCED as of revision", news.revision, flush=True)


host, port, command, *words = sys.argv[1:]
with connect(host, port) as stream:
    stream.write(b"MSHD\1\4\0\0" if command == "watch" else b"\0SP\0\0\x30\0\0")
    stream.flush()
    greeting = receive(stream, 8)
    if command == "watch" and greeting[5]:
        sys.exit(f"status {greeting[5]}: {receive(stream, greeting[7]).decode()}")
    {"lookup": lookup, "introspect": introspect, "watch": watch}[command](stream, *words)
