/* config_yaml - the YAML file as a source of settings.
 *
 * libyaml's events are followed with the table of settings in hand, so every complaint has the line
 * and column of what it is about. libcyaml on top of it would read the file a second time by a
 * second description of the settings, and can say neither line nor column: its errors name the
 * event before. Nothing is kept of the file but the values: a long or deep one costs no memory.
 * Aliases, anchors and tags are refused: no setting needs them, and they make the small files that
 * are large inside. */
#include <string.h>
#include <yaml.h>
#include "daemon/config_parts.h"

#define DEPTH_MAX 16u /* of what nobody asked for, while it is passed over */

struct reader {
    struct config_reading *r;
    const char *file;
    const char *data;
    size_t len;
    yaml_parser_t parser;
    yaml_event_t event;              /* the one at hand */
    bool over;                       /* after an error of syntax, or too many errors */
    unsigned seen_at[N_SETTINGS];    /* line of the key; 0: not yet */
    unsigned section_at[N_SETTINGS]; /* line of a section, by its first setting; 0: not yet */
};

static struct where at(const struct reader *y, yaml_mark_t mark)
{
    return (struct where){.kind = WHERE_FILE,
                          .name = y->file,
                          .line = (unsigned)mark.line + 1,
                          .col = (unsigned)mark.column + 1};
}

static struct where here(const struct reader *y) { return at(y, y->event.start_mark); }

/* libyaml gives an offset instead of a place for what is wrong below the level of characters. */
static yaml_mark_t mark_of_offset(const struct reader *y, size_t offset)
{
    yaml_mark_t mark = {0};

    for (size_t i = 0; i < offset && i < y->len; i++) {
        mark.column++;
        if (y->data[i] == '\n') {
            mark.line++;
            mark.column = 0;
        }
    }
    return mark;
}

static void tell_syntax(struct reader *y)
{
    const yaml_parser_t *p = &y->parser;
    struct where where = at(y, p->error == YAML_READER_ERROR ? mark_of_offset(y, p->problem_offset)
                                                             : p->problem_mark);

    if (p->error == YAML_MEMORY_ERROR)
        y->r->no_memory = true;
    else
        config_error(y->r, &where, NULL, "this is no YAML: %s%s%s", p->problem,
                     p->context ? ", " : "", p->context ? p->context : "");
}

/* The next event; YAML_NO_EVENT when there is nothing more to read. */
static yaml_event_type_t next(struct reader *y)
{
    yaml_event_delete(&y->event); /* leaves it zeroed */
    if (!y->over && !config_error_room(y->r))
        y->over = true;
    if (y->over)
        return YAML_NO_EVENT;
    if (!yaml_parser_parse(&y->parser, &y->event)) {
        y->over = true;
        tell_syntax(y);
    }
    return y->event.type;
}

static bool begins(yaml_event_type_t type)
{
    return type == YAML_MAPPING_START_EVENT || type == YAML_SEQUENCE_START_EVENT;
}

static bool ends(yaml_event_type_t type)
{
    return type == YAML_MAPPING_END_EVENT || type == YAML_SEQUENCE_END_EVENT;
}

/* Passes over the value whose first event is at hand. */
static void skip(struct reader *y)
{
    struct where where;
    unsigned depth = 0;

    for (;;) {
        depth += begins(y->event.type);
        depth -= ends(y->event.type) && depth > 0;
        if (depth == 0 || y->event.type == YAML_NO_EVENT)
            return;
        if (depth > DEPTH_MAX) {
            where = here(y);
            config_error(y->r, &where, NULL, "is nested deeper than %u; the rest is not read",
                         DEPTH_MAX);
            y->over = true;
        }
        next(y);
    }
}

/* What no value here may have. True if the one at hand has it; then it was told and passed over. */
static bool has_decoration(struct reader *y, const struct setting *s)
{
    const yaml_char_t *anchor = NULL, *tag = NULL;
    struct where where = here(y);
    bool alias = y->event.type == YAML_ALIAS_EVENT;

    if (y->event.type == YAML_SCALAR_EVENT) {
        anchor = y->event.data.scalar.anchor;
        tag = y->event.data.scalar.tag;
    } else if (y->event.type == YAML_SEQUENCE_START_EVENT) {
        anchor = y->event.data.sequence_start.anchor;
        tag = y->event.data.sequence_start.tag;
    } else if (y->event.type == YAML_MAPPING_START_EVENT) {
        anchor = y->event.data.mapping_start.anchor;
        tag = y->event.data.mapping_start.tag;
    }
    if (!alias && !anchor && !tag)
        return false;
    config_error(y->r, &where, s, "%s; allowed: plain values (quote what begins with & * or !)",
                 alias    ? "an alias (*)"
                 : anchor ? "an anchor (&)"
                          : "a tag (!)");
    skip(y);
    return true;
}

/* An empty place, as under a key whose lines are all commented out. */
static bool is_nothing(const yaml_event_t *event)
{
    return event->type == YAML_SCALAR_EVENT && event->data.scalar.length == 0 &&
           event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
}

/* The text at hand, in out. False if there is none; then it was told and passed over. */
static bool take_text(struct reader *y, const struct setting *s, const char *what,
                      char out[CONFIG_TEXT_MAX])
{
    const char *value = (const char *)y->event.data.scalar.value;
    size_t len = y->event.data.scalar.length;
    struct where where = here(y);
    char allowed[CONFIG_TEXT_MAX] = "";
    const char *why = NULL;

    if (has_decoration(y, s))
        return false;
    if (y->event.type == YAML_NO_EVENT)
        return false;
    if (y->event.type == YAML_MAPPING_START_EVENT)
        why = "a mapping";
    else if (y->event.type == YAML_SEQUENCE_START_EVENT)
        why = "a list";
    else if (is_nothing(&y->event))
        why = "nothing";
    else if (memchr(value, '\0', len))
        why = "a text with a zero byte in it";
    else if (len >= CONFIG_TEXT_MAX)
        why = "a text of more than 1023 bytes";
    if (why) {
        if (s && !s->list)
            config_allowed(s, allowed);
        config_error(y->r, &where, s, "%s is there, where %s is meant%s%s%s", why, what,
                     begins(y->event.type) ? " (quote a text that begins with [ or {)" : "",
                     *allowed ? "; allowed: " : "", allowed);
        skip(y);
        return false;
    }
    memcpy(out, value, len);
    out[len] = '\0';
    return true;
}

/* True if the value at hand begins with that event. If not: told, unless nothing is there, and
 * passed over. */
static bool expect(struct reader *y, const struct setting *s, yaml_event_type_t type,
                   const char *meant)
{
    struct where where = here(y);

    if (has_decoration(y, s))
        return false;
    if (y->event.type == type)
        return true;
    if (!is_nothing(&y->event) && y->event.type != YAML_NO_EVENT)
        config_error(y->r, &where, s, "%s is meant here", meant);
    skip(y);
    return false;
}

static void append(char out[CONFIG_TEXT_MAX], const char *text, size_t len)
{
    size_t used = strlen(out);

    snprintf(out + used, CONFIG_TEXT_MAX - used, "%s%.*s", used ? ", " : "", (int)len, text);
}

/* The keys that may stand in a section; NULL: at the top. */
static void allowed_keys(const char *section, char out[CONFIG_TEXT_MAX])
{
    size_t skip_len = section ? strlen(section) + 1 : 0, len, last_len = 0;
    const char *last = "";

    out[0] = '\0';
    for (const struct setting *s = settings; s < settings + N_SETTINGS; s++) {
        if (section && (strncmp(s->key, section, skip_len - 1) != 0 || s->key[skip_len - 1] != '.'))
            continue;
        len = strcspn(s->key + skip_len, ".");
        if (len != last_len || strncmp(s->key + skip_len, last, len) != 0) /* a section, once */
            append(out, s->key + skip_len, len);
        last = s->key + skip_len;
        last_len = len;
    }
}

/* The setting of that key, or the first of that section. */
static const struct setting *find_key(const char *section, const char *key, bool *out_section)
{
    char whole[CONFIG_TEXT_MAX * 2];
    const struct setting *s;
    size_t len;

    len = (size_t)snprintf(whole, sizeof(whole), "%s%s%s", section ? section : "",
                           section ? "." : "", key);
    s = strchr(key, '.') ? NULL : setting_find(whole, len);
    *out_section = false;
    if (s || section)
        return s;
    for (s = settings; s < settings + N_SETTINGS; s++) {
        if (strncmp(s->key, key, len) == 0 && s->key[len] == '.') {
            *out_section = true;
            return s;
        }
    }
    return NULL;
}

/* A key that was told; what it has is passed over. */
static void skip_value_of_key(struct reader *y)
{
    next(y);
    skip(y);
}

/* The keys of a list's entries from `from` up to `to`. */
static void allowed_fields(const struct list_type *list, unsigned from, unsigned to,
                           const char *between, char out[CONFIG_TEXT_MAX])
{
    size_t used = 0;

    out[0] = '\0';
    for (unsigned i = from; i < to && list->fields[i].name; i++)
        used += (size_t)snprintf(out + used, CONFIG_TEXT_MAX - used, "%s%s",
                                 i > from ? between : "", list->fields[i].name);
}

/* An entry of a list while it is read. */
struct list_entry {
    struct where at;
    bool seen[LIST_FIELDS_MAX];
    bool good;
    void *item;
};

/* The text at hand. */
static void read_list_text(struct reader *y, const struct setting *s, struct list_entry *entry,
                           unsigned field)
{
    char text[CONFIG_TEXT_MAX];
    struct where where = here(y);

    if (!take_text(y, s, "one value", text) ||
        !config_entry_field(y->r, s, entry->item, field, text, &where))
        entry->good = false;
}

/* The value at hand: one text, or a list of them. */
static void read_list_value(struct reader *y, const struct setting *s, struct list_entry *entry,
                            unsigned field)
{
    if (!(s->list->many & 1u << field) || y->event.type != YAML_SEQUENCE_START_EVENT) {
        read_list_text(y, s, entry, field);
        return;
    }
    if (has_decoration(y, s)) {
        entry->good = false;
        return;
    }
    while (next(y) != YAML_SEQUENCE_END_EVENT && y->event.type != YAML_NO_EVENT)
        read_list_text(y, s, entry, field);
}

/* The key at hand, and its value. */
static void read_list_field(struct reader *y, const struct setting *s, struct list_entry *entry)
{
    char key[CONFIG_TEXT_MAX], quoted[CONFIG_TEXT_MAX], allowed[CONFIG_TEXT_MAX];
    const struct list_field *fields = s->list->fields;
    struct where where = here(y);
    unsigned i = 0;

    if (!take_text(y, s, "a key", key)) {
        skip_value_of_key(y);
        return;
    }
    while (fields[i].name && strcmp(key, fields[i].name) != 0)
        i++;
    if (!fields[i].name) {
        allowed_fields(s->list, 0, LIST_FIELDS_MAX, ", ", allowed);
        config_error(y->r, &where, s, "unknown key %s; allowed: %s", config_quote(key, quoted),
                     allowed);
    } else if (entry->seen[i]) {
        config_error(y->r, &where, s, "%s is there already; allowed: once",
                     config_quote(key, quoted));
    }
    if (!fields[i].name || entry->seen[i]) {
        skip_value_of_key(y);
        return;
    }
    entry->seen[i] = true;
    next(y);
    read_list_value(y, s, entry, i);
}

static void read_list_entry(struct reader *y, const struct setting *s)
{
    const struct list_type *list = s->list;
    char must[CONFIG_TEXT_MAX], may[CONFIG_TEXT_MAX], meant[2 * CONFIG_TEXT_MAX + 32];
    struct list_entry entry = {.at = here(y), .good = true};

    allowed_fields(list, 0, list->n_required, " and ", must);
    allowed_fields(list, list->n_required, LIST_FIELDS_MAX, ", ", may);
    snprintf(meant, sizeof(meant), "an entry of %s and perhaps %s", must, may);
    if (is_nothing(&y->event))
        config_error(y->r, &entry.at, s, "nothing is there, where %s is meant", meant);
    if (!expect(y, s, YAML_MAPPING_START_EVENT, meant))
        return;
    entry.item = config_entry_begin(y->r, s);
    if (!entry.item) {
        y->over = true;
        return;
    }
    while (next(y) != YAML_MAPPING_END_EVENT && y->event.type != YAML_NO_EVENT)
        read_list_field(y, s, &entry);
    entry.good &= y->event.type != YAML_NO_EVENT;
    for (unsigned i = 0; i < list->n_required && y->event.type != YAML_NO_EVENT; i++) {
        if (entry.seen[i])
            continue;
        config_error(y->r, &entry.at, s, "has no %s; meant is %s", list->fields[i].name, meant);
        entry.good = false;
    }
    config_entry_end(y->r, s, entry.item, entry.good, &entry.at);
}

static void read_list(struct reader *y, const struct setting *s)
{
    if (!expect(y, s, YAML_SEQUENCE_START_EVENT, "a list"))
        return;
    config_list_begin(y->r, s);
    while (next(y) != YAML_SEQUENCE_END_EVENT && y->event.type != YAML_NO_EVENT)
        read_list_entry(y, s);
    config_list_end(y->r, s);
}

static void read_setting(struct reader *y, const struct setting *s)
{
    char text[CONFIG_TEXT_MAX];
    struct where where = here(y);

    if (s->list)
        read_list(y, s);
    else if (take_text(y, s, "one value", text))
        config_set(y->r, s, text, &where);
}

/* The mapping whose start is at hand: the whole file, or (section) one of its sections. */
static void read_mapping(struct reader *y, const char *section)
{
    char key[CONFIG_TEXT_MAX], allowed[CONFIG_TEXT_MAX], quoted[CONFIG_TEXT_MAX];
    const struct setting *s;
    struct where where;
    unsigned *line;
    bool is_section;

    while (next(y) != YAML_MAPPING_END_EVENT && y->event.type != YAML_NO_EVENT) {
        where = here(y);
        if (!take_text(y, NULL, "a key", key)) {
            skip_value_of_key(y);
            continue;
        }
        s = find_key(section, key, &is_section);
        if (!s) {
            allowed_keys(section, allowed);
            config_error(y->r, &where, NULL, "unknown key %s%s%s; allowed: %s",
                         config_quote(key, quoted), section ? " in " : "", section ? section : "",
                         allowed);
            skip_value_of_key(y);
            continue;
        }
        line = is_section ? &y->section_at[s - settings] : &y->seen_at[s - settings];
        if (*line) {
            config_error(y->r, &where, is_section ? NULL : s,
                         "%s%sis there already, at line %u; allowed: once", is_section ? key : "",
                         is_section ? ": " : "", *line);
            skip_value_of_key(y);
            continue;
        }
        *line = where.line;
        next(y);
        if (!is_section)
            read_setting(y, s);
        else if (expect(y, NULL, YAML_MAPPING_START_EVENT, "a section of keys"))
            read_mapping(y, key);
    }
}

static void read_document(struct reader *y)
{
    struct where where;

    if (next(y) == YAML_STREAM_START_EVENT)
        next(y);
    if (y->event.type != YAML_DOCUMENT_START_EVENT)
        return; /* an empty file is a file without settings */
    next(y);
    if (expect(y, NULL, YAML_MAPPING_START_EVENT, "a mapping of settings"))
        read_mapping(y, NULL);
    if (y->event.type == YAML_NO_EVENT)
        return;
    next(y); /* the document's end */
    if (next(y) != YAML_STREAM_END_EVENT && y->event.type != YAML_NO_EVENT) {
        where = here(y);
        config_error(y->r, &where, NULL, "a second document begins here; allowed: one");
    }
}

void config_yaml(struct config_reading *r, const char *file, const void *data, size_t len)
{
    struct reader y = {.r = r, .file = file, .data = data, .len = len};

    if (!yaml_parser_initialize(&y.parser)) {
        r->no_memory = true;
        return;
    }
    yaml_parser_set_encoding(&y.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&y.parser, data, len);
    read_document(&y);
    yaml_event_delete(&y.event);
    yaml_parser_delete(&y.parser);
}
