/* tls_stage - a mesh with a CA, a fake node n1 of it behind TLS, and a program that has a
 * certificate.
 */
#ifndef TESTS_CLIENT_TLS_STAGE_H
#define TESTS_CLIENT_TLS_STAGE_H

#include <semaphore.h>
#include <meshd/client.h>
#include "client/fake.h"
#include "client/front.h"
#include "tls/support.h"

#define SOON 20000 /* ms; what is to succeed has as long as that */

extern struct fake fake;
extern struct front front;
extern struct mesh_client *client;
extern struct issued *ca, *other_ca;
extern struct mesh_tls mine; /* the program's */
extern sem_t told;           /* posted by a fake */

void stage_setup(void);
/* What a program of the mesh has: files in `mine`. */
void stage_files(const char *name, const struct issued *trusted, const struct issued *own);
/* A node n1 of the mesh, or with another certificate. */
void stage_start(void (*serve)(struct fake *fake, int fd), const struct issued *own);
void stage_open(void); /* client */
void stage_finds(const char *name);
void stage_stop(void); /* closes the client too */

#endif
