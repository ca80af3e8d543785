/* The threads' test without Criterion, under which ThreadSanitizer cannot run. */
#include "client/replica_body.h"

int main(void) { return replica_body() == 0 ? 0 : 1; }
