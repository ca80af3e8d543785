/* stranger - functions of a program that happen to have the names of some inside libmeshd. */
#include <stdlib.h>
#include <meshd/client.h>

int log_write(void);
int clock_ms(void);
int list_new(void);
int call_open(void);
int stream_open(void);
int name_canon(void);
int error_set(void);
int random_u64(void);

int log_write(void) { abort(); }
int clock_ms(void) { abort(); }
int list_new(void) { abort(); }
int call_open(void) { abort(); }
int stream_open(void) { abort(); }
int name_canon(void) { abort(); }
int error_set(void) { abort(); }
int random_u64(void) { abort(); }
