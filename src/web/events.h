/* events - what followers of the live page are told, as server-sent events (HTML Standard 9.2).
 *
 *   hello    {peer_id, epoch, revision, software}: whatever was told before is forgotten
 *   rows     [ServiceRow, ...], a part of the picture as of that revision
 *   synced   {revision}: the picture is whole
 *   changes  {revision, events: [{kind, row, why}, ...]}, as in WatchReply: what has happened since
 *   node     IntrospectReply without the maps
 *   peers    {revision, peer_services: [PeerServicesRow without services, ...]}
 *   log      {when, kind, peer_id, text}
 *   beat     {}: nothing happens (a comment would not reach who reads)
 *
 * Data are JSON with the names of mesh.proto. Nothing is queued for a follower: it holds the
 * picture that it has been told, and when it can take more, what differs from the newest is found
 * out. A slow one gets bigger steps, and a fresh picture when a step would be too big; so it costs
 * two pictures and one part of text, whatever happens. Steps are made once for all who are at the
 * same picture, at most four times a second.
 *
 * Pure: no socket, no clock, no thread of its own; all of it on one thread.
 */
#ifndef WEB_EVENTS_H
#define WEB_EVENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "registry/snapshot.h"

#define EVENTS_STEP_MS 250u        /* from one `changes` to the next */
#define EVENTS_STEP_BYTES 1048576u /* of a `changes`; what would be longer is told as a picture */
#define EVENTS_PART_BYTES 32768u   /* of a `rows`; one row more at most */
#define EVENTS_LOG 200u            /* of what happened is kept for who comes */
#define EVENTS_BEAT_MS 5000u
#define EVENTS_PEERS_A_SECOND 500u /* in `peers`; when there are more, it comes less often */

struct events;
struct follower;

int events_new(const char *peer_id, const char *software, struct events **out_events); /* copies */
void events_free(struct events *events); /* accepts NULL; after its followers */

/* Takes its own reference. One that is not newer than the last changes nothing. */
void events_show(struct events *events, struct snapshot *snap, uint64_t now_ms);
/* Now and then: whatever waited for its time. In how many ms again, at the latest, if anybody
 * follows. */
void events_turn(struct events *events, uint64_t now_ms);

/* Nobody follows: what would be old when somebody does is forgotten. What happened is kept. */
void events_rest(struct events *events);

/* The others are told once each time; without memory they are left out. */
void events_node(struct events *events, const char *json, size_t len);
void events_peers(struct events *events, const struct snapshot *snap, uint64_t now_ms);
/* Whether it is time for them: an answer of the node's, a fresh picture. */
bool events_peers_due(const struct events *events, uint64_t now_ms);
void events_tell(struct events *events, const char *kind, const char *peer_id, const char *text,
                 uint64_t when_s);

/* From hello on. -ENOMEM. */
int follower_new(struct events *events, uint64_t now_ms, struct follower **out_follower);
void follower_free(struct follower *follower); /* accepts NULL */
/* The next bytes for it: how many were written to buf, at most max; 0: nothing now; -ENOMEM. */
ssize_t follower_read(struct follower *follower, char *buf, size_t max, uint64_t now_ms);
/* Whether follower_read would write something. */
bool follower_has_news(const struct follower *follower, uint64_t now_ms);

#endif
