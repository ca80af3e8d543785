/* The threads' test without Criterion, under which ThreadSanitizer cannot run. */
#include "client/threads_body.h"

int main(void) { return threads_body(false) == 0 && threads_body(true) == 0 ? 0 : 1; }
