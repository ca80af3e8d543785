/* offer - node_offer, node_withdraw and node_drain_service: answered before they return. */
#ifndef NODE_OFFER_H
#define NODE_OFFER_H

#include <stdint.h>
#include <meshd/v1/mesh.pb-c.h>

struct node;
struct node_caller;

void offer_service(struct node *n, uint64_t call, const struct node_caller *caller,
                   const Meshd__V1__OfferRequest *request);
void offer_withdraw(struct node *n, uint64_t call, const struct node_caller *caller,
                    const Meshd__V1__WithdrawRequest *request);
void offer_drain(struct node *n, uint64_t call, const struct node_caller *caller,
                 const Meshd__V1__DrainRequest *request);

#endif
