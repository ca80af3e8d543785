/* json - a message as JSON, by its descriptor.
 *
 * snake_case names as in the .proto, fields in the order of their numbers, 64-bit numbers as
 * numbers (but fixed64, digests and nonces, in decimal as a string: RFC 8259, section 6), false,
 * zero, empty strings and empty lists printed, absent sub-messages as null, enums by their name
 * without the enum's prefix in lower case ("id_in_use") or as a number when it has none here, bytes
 * as lower-case hex. Jansson's integers are signed: above 2^63 - 1 a number is rounded to a double.
 */
#ifndef WIRE_JSON_H
#define WIRE_JSON_H

#include <jansson.h>
#include <protobuf-c/protobuf-c.h>

/* A new reference, the caller's; NULL without memory. A string that is not UTF-8 has its bad bytes
 * replaced by U+FFFD. */
json_t *wire_json(const ProtobufCMessage *message);

#endif
