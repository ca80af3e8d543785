/* field - what protobuf-c's descriptors leave to who walks them. */
#ifndef WIRE_FIELD_H
#define WIRE_FIELD_H

#include <stddef.h>
#include <protobuf-c/protobuf-c.h>

/* The size of one value of the field where the message keeps it: a string is a pointer there. */
size_t field_size(const ProtobufCFieldDescriptor *field);

#endif
