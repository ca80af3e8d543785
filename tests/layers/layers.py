#!/usr/bin/python3
"""layers - compares every #include of src/, tools/ and include/ with the table of rooms below.

A room is a folder of src/; `tools` and `include` are rooms too. What a room may include, beside
itself, stands in ROOMS; which rooms may see a library's headers stands in LIBRARIES. The linker
already refuses an upward call; this test refuses upward types and macros as well.

    layers.py ROOT         prints each violation as file:line: what, and ends with 1 if there is any
    layers.py --self-test  plants violations in a tree of its own and demands that each is found
"""
import pathlib
import re
import sys
import tempfile

EVERYTHING = {"base", "policy", "wire", "rpc", "tls", "gate", "registry", "node", "forward", "web", "client"}
ROOMS = {
    "base": set(),
    "policy": {"base"},
    "wire": {"base"},
    "rpc": {"base", "wire"},
    "tls": {"base"},
    "gate": {"base", "wire", "tls"},
    "registry": {"base"},
    "node": {"base", "policy", "wire", "registry"},
    "forward": {"base", "policy", "wire", "tls", "gate", "registry"},
    "web": {"base", "wire", "registry"},
    "client": {"base", "wire", "tls", "include"},
    "daemon": EVERYTHING,
    "tools": {"client", "wire", "base", "tls", "include"},
    "include": set(),
}
# Headers of others, by the beginning of their name: the rooms that may include them.
LIBRARIES = {
    "nng/": {"rpc"},
    "nanomsg/": set(),
    "openssl/": {"tls"},
    "meshd/v1/mesh.pb-c.h": {"wire", "rpc", "gate", "node", "forward", "web", "client", "daemon", "tools"},
    "uv.h": {"gate", "forward", "web", "daemon"},
    "yaml.h": {"daemon"},
    "seccomp.h": {"daemon"},
    "microhttpd.h": {"web"},
    "jansson.h": {"wire", "web", "client", "daemon", "tools"},
    "uthash.h": {"base", "wire", "rpc", "gate", "registry", "node", "forward", "web", "client", "daemon"},
}
INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)')


def room_of(path):
    """The room of a file, by its path below the root: src/gate/sniff.c -> gate."""
    parts = path.parts
    return parts[1] if parts[0] == "src" and len(parts) > 2 else parts[0]


def judge(root, path, text):
    """What is wrong with one #include, or None. text is what stands between its marks."""
    room = room_of(path)
    for prefix, allowed in LIBRARIES.items():
        if text.startswith(prefix) and room not in allowed:
            return f"<{text}> is for {', '.join(sorted(allowed)) or 'nobody'}"
    if text.startswith("meshd/"):
        target = "include" if (root / "include" / text).exists() else None
    elif ".." in text.split("/"):
        return f'"{text}": name the room instead of climbing'
    elif "/" in text and text.split("/")[0] in ROOMS:
        target = text.split("/")[0]
    else:
        target = None
    if target in (None, room) or target in ROOMS[room]:
        return None
    return f'"{text}": {room} may include {", ".join(sorted(ROOMS[room])) or "no room"}, not {target}'


def check(root):
    """Every violation below root, as lines to print; and the number of #include looked at."""
    wrong, looked_at = [], 0
    files = [f for top in ("src", "tools", "include") for f in sorted((root / top).rglob("*.[ch]"))]
    for file in files:
        path = file.relative_to(root)
        if room_of(path) not in ROOMS:
            wrong.append(f"{path}:1: '{room_of(path)}' is not a room that this test knows")
            continue
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
            match = INCLUDE.match(line)
            if match:
                looked_at += 1
                why = judge(root, path, match.group(1) or match.group(2))
                if why:
                    wrong.append(f"{path}:{number}: {why}")
    return wrong, looked_at


GOOD = {
    "src/wire/good.c": '#include "wire/good.h"\n#include "base/limits.h"\n#include <meshd/v1/mesh.pb-c.h>\n',
    "src/rpc/good.c": "#include <nng/nng.h>\n#include <stdio.h>\n",
    "src/tls/good.c": "#include <openssl/ssl.h>\n",
    "src/daemon/good.c": '#include "gate/gate.h"\n#include "node/node.h"\n/*\n * #include "no/code.h"\n */\n',
    "src/client/good.c": "#include <meshd/client.h>\n",
    "include/meshd/client.h": "#include <stddef.h>\n",
    "tools/good.c": '#include <meshd/client.h>\n#include "wire/json.h"\n',
}
BAD = [  # each alone must be found
    ("src/base/x.c", '#include "wire/name.h"'),
    ("src/base/x.h", "#include <meshd/v1/mesh.pb-c.h>"),
    ("src/wire/x.c", '#include "registry/registry.h"'),
    ("src/wire/x.c", '  #  include "rpc/server.h"'),
    ("src/rpc/x.c", '#include "gate/gate.h"'),
    ("src/gate/x.c", '#include "rpc/pair.h"'),
    ("src/gate/x.c", "#include <nng/nng.h>"),
    ("src/gate/x.c", "#include <openssl/ssl.h>"),
    ("src/tls/x.c", '#include "wire/frame.h"'),
    ("src/registry/x.c", '#include "wire/name.h"'),
    ("src/registry/x.c", "#include <meshd/v1/mesh.pb-c.h>"),
    ("src/node/x.c", '#include "gate/gate.h"'),
    ("src/node/x.c", '#include "../rpc/pair.h"'),
    ("src/node/x.c", "#include <uv.h>"),
    ("src/client/x.c", '#include "daemon/config.h"'),
    ("src/client/x.c", "#include <nng/nng.h>"),
    ("src/base/x.c", '#include "daemon/config.h"'),
    ("src/wire/x.c", "#include <meshd/client.h>"),
    ("src/daemon/x.c", '#include "tools/output.h"'),
    ("tools/x.c", '#include "rpc/client.h"'),
    ("tools/x.c", "#include <nng/nng.h>"),
    ("include/meshd/x.h", '#include "base/limits.h"'),
    ("src/attic/x.c", "#include <stdio.h>"),
]


def self_test():
    failures = 0
    with tempfile.TemporaryDirectory() as name:
        root = pathlib.Path(name)
        for path, text in GOOD.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        wrong, _ = check(root)
        for line in wrong:
            print(f"not ok: a good tree was refused: {line}")
            failures += 1
        for path, line in BAD:
            file = root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("/* planted */\n" + line + "\n")
            wrong, _ = check(root)
            file.unlink()
            if len(wrong) == 1 and wrong[0].startswith(f"{path}:"):
                print(f"ok: {wrong[0]}")
            else:
                print(f"not ok: {path} with {line} gave {wrong}")
                failures += 1
    print(f"{len(BAD)} violations planted, {failures} wrong answers")
    return 1 if failures else 0


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    wrong, looked_at = check(pathlib.Path(sys.argv[1]))
    for line in wrong:
        print(line)
    print(f"{looked_at} includes, {len(wrong)} against the table")
    return 1 if wrong or looked_at == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
