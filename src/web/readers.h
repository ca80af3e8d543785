/* readers - /events: followers of the page. On web's thread, but readers_new and readers_free. */
#ifndef WEB_READERS_H
#define WEB_READERS_H

struct readers;
struct web;

int readers_new(struct web *web, struct readers **out_readers);
void readers_free(
    struct readers *readers); /* accepts NULL; after readers_close, or never started */
int readers_start(struct readers *readers); /* its handles on web's loop */
void readers_close(struct readers *readers);
void readers_bell(struct readers *readers); /* other threads may have left something */

#endif
