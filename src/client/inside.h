/* inside - what the files of the library share: calls on a mesh_client, whatever their method.
 *
 * Of this, nothing leaves the library. Failure is an enum mesh_status with its text set.
 */
#ifndef CLIENT_INSIDE_H
#define CLIENT_INSIDE_H

#include <meshd/client.h>
#include <meshd/v1/mesh.pb-c.h>
#include "client/reply.h"
#include "client/trust.h"
#include "wire/check.h"

#define DEADLINE_MS_MAX 600000 /* of every function, and of CallHeader */
#define ROWS_MAX 10000000u     /* the most that a node may be set to keep */

/* 0 and when that will be, on clock_ms(); or MESH_INVALID. */
enum mesh_status deadline_of(int deadline_ms, uint64_t *out_deadline_ms);

/* The client's, borrowed; NULL when its URL is not tls://. */
struct trust *client_trust(const struct mesh_client *client);

/* A call with room for a request of body_len bytes, to be packed into *out_body. Not under way yet;
 * call_free ends it. */
enum mesh_status client_call_new(struct mesh_client *client, const char *method, size_t body_len,
                                 uint64_t deadline_ms, struct mesh_call **out_call,
                                 uint8_t **out_body);
/* Under way from here on. */
enum mesh_status client_call_begin(struct mesh_call *call);
/* Waits for the answer, which lives as long as the call. MESH_OK: the node answered with OK. */
enum mesh_status client_call_answer(struct mesh_call *call, struct reply *out_reply);
void client_call_free(struct mesh_call *call); /* accepts NULL; under way or not */
void client_call_freep(struct mesh_call **call);

/* A whole call: the request out, the reply unpacked into the arena. */
enum mesh_status client_ask(struct mesh_client *client, const char *method,
                            const ProtobufCMessage *request, uint64_t deadline_ms,
                            struct arena *arena, const ProtobufCMessage **out_message);

/* How many names the call asks for is kept with it; before it begins. Calls with names are lookups:
 * small ones travel together. */
void client_call_set_names(struct mesh_call *call, size_t n);
/* After its answer: how many they are, at which of the answer's results they begin, and how many
 * results it has in all. */
size_t client_call_names(const struct mesh_call *call, size_t *out_first, size_t *out_all);

#endif
