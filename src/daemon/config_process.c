/* config_process - users, groups and permission bits.
 *
 * A name is looked up as it is read, so that a wrong one is told with its place. "" is none. */
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <string.h>
#include "daemon/config_parts.h"

#define ACCOUNT_CHARS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-$@"

/* One name, as it may stand in a file between quotes. */
static bool account_name(const char *text, size_t len, char out[CONFIG_ACCOUNT_MAX + 1])
{
    if (len == 0 || len > CONFIG_ACCOUNT_MAX || strspn(text, ACCOUNT_CHARS) < len)
        return false;
    memcpy(out, text, len);
    out[len] = '\0';
    return true;
}

/* After getpwnam or getgrnam found nothing: why. */
static const char *in_vain(const char *nobody)
{
    bool failed = errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == EIO;

    return failed ? "cannot be looked up now" : nobody;
}

static const char *find_group(const char *name, gid_t *out_gid)
{
    const struct group *group;

    errno = 0;
    group = getgrnam(name);
    if (!group)
        return in_vain("names no group of this host");
    *out_gid = group->gr_gid;
    return NULL;
}

static const char *parse_group(const struct setting *s, const char *text, struct config *config)
{
    struct config_group *to = (struct config_group *)((char *)config + s->offset), group = {0};
    const char *why;

    if (*text) {
        if (!account_name(text, strlen(text), group.name))
            return "is no group's name";
        why = find_group(group.name, &group.gid);
        if (why)
            return why;
    }
    *to = group;
    return NULL;
}

static void print_group(const struct setting *s, const struct config *config, FILE *out)
{
    const struct config_group *group =
        (const struct config_group *)((const char *)config + s->offset);

    fprintf(out, "\"%s\"", group->name);
}

static const char *parse_user(const struct setting *s, const char *text, struct config *config)
{
    struct config_user *to = (struct config_user *)((char *)config + s->offset), user = {0};
    size_t len = strcspn(text, ":");
    const struct passwd *entry;
    const char *why;

    if (!*text) {
        *to = user;
        return NULL;
    }
    if (!account_name(text, len, user.name) ||
        (text[len] && !account_name(text + len + 1, strlen(text + len + 1), user.group)))
        return "is neither a user's name nor user:group";
    errno = 0;
    entry = getpwnam(user.name);
    if (!entry)
        return in_vain("names no user of this host");
    user.uid = entry->pw_uid;
    user.gid = entry->pw_gid;
    if (user.group[0]) {
        why = find_group(user.group, &user.gid);
        if (why)
            return why;
    }
    *to = user;
    return NULL;
}

static void print_user(const struct setting *s, const struct config *config, FILE *out)
{
    const struct config_user *user = (const struct config_user *)((const char *)config + s->offset);

    fprintf(out, "\"%s%s%s\"", user->name, user->group[0] ? ":" : "", user->group);
}

static const char *parse_mode(const struct setting *s, const char *text, struct config *config)
{
    size_t len = strlen(text);
    unsigned mode = 0;

    if (len < 3 || len > 4 || strspn(text, "01234567") < len)
        return "is no octal mode";
    for (size_t i = 0; i < len; i++)
        mode = mode * 8 + (unsigned)(text[i] - '0');
    if (mode > 0777)
        return "is too large";
    if ((mode & 0600) != 0600)
        return "keeps the node's own user out";
    *(unsigned *)((char *)config + s->offset) = mode;
    return NULL;
}

static void print_mode(const struct setting *s, const struct config *config, FILE *out)
{
    fprintf(out, "%04o", *(const unsigned *)((const char *)config + s->offset));
}

const struct setting_type type_user = {parse_user, print_user};
const struct setting_type type_group = {parse_group, print_group};
const struct setting_type type_mode = {parse_mode, print_mode};
