/*
 * cdi-guard KEY CONTAINER_ID GENERATION: lets a container start only while its permission holds.
 *
 * A createRuntime hook of the container's CDI spec: it runs as root before the container's first instruction, at every start,
 * whoever asked for it. The engine reads specs through a cache that runs behind, and a CDI name is a bearer token; so what
 * counts is the grant file, read here and now. The start goes on only if
 *
 *   1. the id in the OCI state on stdin is CONTAINER_ID (nobody else borrowed the name),
 *   2. GRANT_DIR/KEY reads "CONTAINER_ID GENERATION SLOT,…" (no spec of yesterday),
 *   3. every further line of it, "DEV:INODE TARGET", is what lies at TARGET in the container now (no bind mount's source was
 *      swapped since it was checked). DEV is stat's st_dev and INODE its st_ino, both as plain decimal numbers.
 *
 * Whatever it cannot read or understand refuses the start: exit status 1 and one line on stderr, which ends up in the engine's
 * own error. It writes nothing, keeps nothing, forks nothing and takes no memory from the heap.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef GRANT_DIR
#define GRANT_DIR "/run/ds01/grant"
#endif

enum {
    DOCUMENT_MAX = 4 * 1024 * 1024, /* config.json carries the user's environment, which execve limits to less */
    GRANT_MAX = 256 * 1024,
    PATH_SPACE = 4096, /* PATH_MAX, with its NUL */
    NAME_MAX_LENGTH = 128,
    JSON_DEPTH = 64,
};

/* A reason to refuse, without the leading "ds01: cannot start: "; NULL: nothing speaks against it. */
typedef const char *refusal;

struct span { /* a piece of a buffer: [at, end) */
    const char *at, *end;
};

struct start { /* what the engine says about this start */
    char id[NAME_MAX_LENGTH + 1];
    char bundle[PATH_SPACE];
    long pid;
};

struct mount_line {
    uint64_t dev, inode;
    char target[PATH_SPACE];
};

/* ---- text ------------------------------------------------------------------------------------------------------------ */

static size_t length_of(struct span s) {
    return (size_t)(s.end - s.at);
}

static bool same(struct span s, const char *text) {
    return length_of(s) == strlen(text) && memcmp(s.at, text, length_of(s)) == 0;
}

/* Cuts what lies before the first `mark` off the front of `rest`, the mark with it; false when there is no mark. */
static bool cut(struct span *rest, char mark, struct span *piece) {
    const char *found = memchr(rest->at, mark, length_of(*rest));
    if (found == NULL)
        return false;
    *piece = (struct span){rest->at, found};
    rest->at = found + 1;
    return true;
}

static bool decimal(struct span s, uint64_t *number) {
    if (s.at == s.end || (s.at[0] == '0' && length_of(s) > 1))
        return false;
    *number = 0;
    for (; s.at < s.end; s.at++) {
        if (*s.at < '0' || *s.at > '9')
            return false;
        uint64_t digit = (uint64_t)(*s.at - '0');
        if (*number > (UINT64_MAX - digit) / 10)
            return false;
        *number = *number * 10 + digit;
    }
    return true;
}

/* Letters, digits and _ . : - with an alphanumeric front: a safe file name, and one word of a grant. */
static bool is_name(struct span s) {
    if (s.at == s.end || length_of(s) > NAME_MAX_LENGTH)
        return false;
    for (const char *c = s.at; c < s.end; c++) {
        bool alphanumeric = (*c >= '0' && *c <= '9') || (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z');
        if (!alphanumeric && (c == s.at || strchr("_.:-", *c) == NULL || *c == '\0'))
            return false;
    }
    return true;
}

static struct span span_of(const char *text) {
    return (struct span){text, text + strlen(text)};
}

/* ---- JSON ------------------------------------------------------------------------------------------------------------ */

/* Scanners move `in` behind what they understood and return false at the first thing that JSON (RFC 8259) does not allow. */

static void skip_blanks(struct span *in) {
    while (in->at < in->end && (*in->at == ' ' || *in->at == '\t' || *in->at == '\n' || *in->at == '\r'))
        in->at++;
}

static bool take(struct span *in, char c) {
    if (in->at == in->end || *in->at != c)
        return false;
    in->at++;
    return true;
}

static bool take_word(struct span *in, const char *word) {
    size_t n = strlen(word);
    if (length_of(*in) < n || memcmp(in->at, word, n) != 0)
        return false;
    in->at += n;
    return true;
}

static bool take_digits(struct span *in) {
    const char *from = in->at;
    while (in->at < in->end && *in->at >= '0' && *in->at <= '9')
        in->at++;
    return in->at > from;
}

static bool take_number(struct span *in) {
    (void)take(in, '-');
    if (!take(in, '0') && !take_digits(in))
        return false;
    if (take(in, '.') && !take_digits(in))
        return false;
    if (take(in, 'e') || take(in, 'E')) {
        if (!take(in, '+'))
            (void)take(in, '-');
        return take_digits(in);
    }
    return true;
}

static bool take_hex4(struct span *in, uint32_t *unit) {
    *unit = 0;
    for (int i = 0; i < 4; i++) {
        if (in->at == in->end)
            return false;
        char c = *in->at++;
        uint32_t digit;
        if (c >= '0' && c <= '9')
            digit = (uint32_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            digit = (uint32_t)(c - 'a') + 10;
        else if (c >= 'A' && c <= 'F')
            digit = (uint32_t)(c - 'A') + 10;
        else
            return false;
        *unit = *unit << 4 | digit;
    }
    return true;
}

/* Where a string is decoded to. What does not fit, and NUL, which no path or id may hold, only sets `unusable`: such a string
 * may stand anywhere else in the document. */
struct sink {
    char *text;
    size_t space, used;
    bool unusable;
};

static void put(struct sink *to, uint32_t byte) {
    if (byte == 0 || to->used + 1 >= to->space) {
        to->unusable = true;
        return;
    }
    to->text[to->used++] = (char)(unsigned char)byte;
}

static void put_utf8(struct sink *to, uint32_t code) {
    if (code < 0x80) {
        put(to, code);
        return;
    }
    if (code < 0x800) {
        put(to, 0xC0 | code >> 6);
    } else {
        if (code < 0x10000) {
            put(to, 0xE0 | code >> 12);
        } else {
            put(to, 0xF0 | code >> 18);
            put(to, 0x80 | (code >> 12 & 0x3F));
        }
        put(to, 0x80 | (code >> 6 & 0x3F));
    }
    put(to, 0x80 | (code & 0x3F));
}

static bool take_escape(struct span *in, struct sink *to) {
    static const char names[] = "\"\\/bfnrt";
    static const char values[] = "\"\\/\b\f\n\r\t";
    if (in->at == in->end)
        return false;
    char c = *in->at++;
    const char *name = c == '\0' ? NULL : strchr(names, c);
    if (name != NULL) {
        put(to, (unsigned char)values[name - names]);
        return true;
    }
    uint32_t code;
    if (c != 'u' || !take_hex4(in, &code))
        return false;
    if (code >= 0xD800 && code < 0xDC00) {
        uint32_t low;
        struct span ahead = *in;
        if (take_word(&ahead, "\\u") && take_hex4(&ahead, &low) && low >= 0xDC00 && low < 0xE000) {
            *in = ahead;
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        }
    }
    if (code >= 0xD800 && code < 0xE000)
        to->unusable = true; /* half a pair stands for no character */
    else
        put_utf8(to, code);
    return true;
}

static bool take_string(struct span *in, struct sink *to) {
    if (!take(in, '"'))
        return false;
    while (in->at < in->end) {
        unsigned char c = (unsigned char)*in->at++;
        if (c == '"') {
            to->text[to->used] = '\0';
            return true;
        }
        if (c < 0x20)
            return false;
        if (c != '\\')
            put(to, c);
        else if (!take_escape(in, to))
            return false;
    }
    return false;
}

static bool skip_string(struct span *in) {
    char nothing[1];
    struct sink to = {nothing, sizeof nothing, 0, false};
    return take_string(in, &to);
}

static bool skip_value(struct span *in, int depth);

static bool skip_members(struct span *in, int depth, bool named, char close) {
    skip_blanks(in);
    if (take(in, close))
        return true;
    for (;;) {
        skip_blanks(in);
        if (named) {
            if (!skip_string(in))
                return false;
            skip_blanks(in);
            if (!take(in, ':'))
                return false;
        }
        if (!skip_value(in, depth))
            return false;
        skip_blanks(in);
        if (take(in, close))
            return true;
        if (!take(in, ','))
            return false;
    }
}

static bool skip_value(struct span *in, int depth) {
    if (depth == 0)
        return false;
    skip_blanks(in);
    if (in->at == in->end)
        return false;
    switch (*in->at) {
    case '{':
        in->at++;
        return skip_members(in, depth - 1, true, '}');
    case '[':
        in->at++;
        return skip_members(in, depth - 1, false, ']');
    case '"':
        return skip_string(in);
    case 't':
        return take_word(in, "true");
    case 'f':
        return take_word(in, "false");
    case 'n':
        return take_word(in, "null");
    default:
        return take_number(in);
    }
}

struct member { /* one wanted member of an object: where its value stands */
    const char *name;
    struct span value;
    bool found;
};

/* Walks one object and notes the values of the wanted members; a wanted member that stands there twice is not understood. */
static bool take_object(struct span *in, int depth, struct member *wanted, size_t count) {
    skip_blanks(in);
    if (!take(in, '{'))
        return false;
    skip_blanks(in);
    if (take(in, '}'))
        return true;
    for (;;) {
        char name[32];
        struct sink to = {name, sizeof name, 0, false};
        skip_blanks(in);
        if (!take_string(in, &to))
            return false;
        skip_blanks(in);
        if (!take(in, ':'))
            return false;
        skip_blanks(in);
        struct span value = {in->at, in->at};
        if (!skip_value(in, depth - 1))
            return false;
        value.end = in->at;
        for (size_t i = 0; i < count; i++) {
            if (to.unusable || strcmp(wanted[i].name, name) != 0)
                continue;
            if (wanted[i].found)
                return false;
            wanted[i].value = value;
            wanted[i].found = true;
        }
        skip_blanks(in);
        if (take(in, '}'))
            return true;
        if (!take(in, ','))
            return false;
    }
}

/* The same for a whole document. */
static bool take_document(struct span in, struct member *wanted, size_t count) {
    if (!take_object(&in, JSON_DEPTH, wanted, count))
        return false;
    skip_blanks(&in);
    return in.at == in.end;
}

/* The string that a member holds, not empty; false when it is absent, something else, or does not fit. */
static bool string_of(const struct member *m, char *text, size_t space) {
    struct sink to = {text, space, 0, false};
    struct span in = m->value;
    return m->found && take_string(&in, &to) && !to.unusable && to.used > 0;
}

/* ---- the three documents --------------------------------------------------------------------------------------------- */

/* The OCI runtime's state: {"id": …, "pid": …, "bundle": …}. */
static refusal parse_state(struct span text, struct start *start) {
    struct member wanted[] = {{.name = "id"}, {.name = "pid"}, {.name = "bundle"}};
    uint64_t pid;
    if (!take_document(text, wanted, 3) || !string_of(&wanted[0], start->id, sizeof start->id) || !wanted[1].found ||
        !decimal(wanted[1].value, &pid) || pid == 0 || pid > INT32_MAX ||
        !string_of(&wanted[2], start->bundle, sizeof start->bundle) || start->bundle[0] != '/')
        return "the engine's description of this start cannot be read";
    start->pid = (long)pid;
    return NULL;
}

/* The bundle's config.json: {"root": {"path": …}}. */
static refusal parse_config(struct span text, char *rootfs, size_t space) {
    struct member root = {.name = "root"};
    struct member path = {.name = "path"};
    if (!take_document(text, &root, 1) || !root.found || !take_object(&root.value, JSON_DEPTH, &path, 1) ||
        !string_of(&path, rootfs, space))
        return "the bundle's config.json names no root.path";
    return NULL;
}

/* The first line of a grant against the three words we were called with; `rest` is left at the line after it. */
static refusal parse_grant_head(struct span *rest, const char *container, const char *generation) {
    static const char torn[] = "its grant cannot be read; ds01ctl doctor says more";
    struct span line, word;
    if (memchr(rest->at, '\0', length_of(*rest)) != NULL || !cut(rest, '\n', &line))
        return torn;
    if (!cut(&line, ' ', &word) || !is_name(word))
        return torn;
    bool same_container = same(word, container);
    if (!cut(&line, ' ', &word) || !is_name(word))
        return torn;
    bool same_generation = same(word, generation);
    if (line.at == line.end)
        return torn;
    for (const char *c = line.at; c < line.end; c++)
        if ((unsigned char)*c <= ' ' || (unsigned char)*c >= 0x7F)
            return torn;
    if (!same_container)
        return "its grant belongs to another container";
    if (!same_generation)
        return "stale generation: the engine still had an older permission at hand; start it again";
    return NULL;
}

/* One further line, "DEV:INODE TARGET". */
static refusal parse_mount(struct span *rest, struct mount_line *mount) {
    static const char torn[] = "a mount in its grant cannot be read; ds01ctl doctor says more";
    struct span line, word;
    if (!cut(rest, '\n', &line) || !cut(&line, ':', &word) || !decimal(word, &mount->dev) || !cut(&line, ' ', &word) ||
        !decimal(word, &mount->inode))
        return torn;
    if (line.at == line.end || *line.at != '/' || length_of(line) >= sizeof mount->target)
        return torn;
    memcpy(mount->target, line.at, length_of(line));
    mount->target[length_of(line)] = '\0';
    return NULL;
}

/* ---- the world ------------------------------------------------------------------------------------------------------- */

static char document[DOCUMENT_MAX + 1];
static char grant[GRANT_MAX + 1];

/* Reads to the end of a file; false on an error, and when there is more than `space` bytes of it. */
static bool read_all(int fd, char *buffer, size_t space, struct span *text) {
    size_t used = 0;
    for (;;) {
        ssize_t n = read(fd, buffer + used, space + 1 - used);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        if (n == 0)
            break;
        used += (size_t)n;
        if (used > space)
            return false;
    }
    *text = (struct span){buffer, buffer + used};
    return true;
}

static bool read_file(const char *path, char *buffer, size_t space, struct span *text, struct stat *info) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return false;
    bool good = fstat(fd, info) == 0 && S_ISREG(info->st_mode) && read_all(fd, buffer, space, text);
    int why = good ? 0 : EIO;
    (void)close(fd);
    errno = why;
    return good;
}

/* Joins strings up to a NULL; false when they do not fit. */
static bool join(char *path, size_t space, const char *const pieces[]) {
    size_t used = 0;
    for (; *pieces != NULL; pieces++) {
        size_t n = strlen(*pieces);
        if (n >= space - used)
            return false;
        memcpy(path + used, *pieces, n);
        used += n;
    }
    path[used] = '\0';
    return true;
}

/* Opens a path as the container will see it: `root` is its "/" for symlinks, too, and magic links are not followed. */
static int open_below(int root, const char *path) {
    struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT};
    int fd;
    int tries = 0;
    do /* EAGAIN: a ".." met a rename or a mount made elsewhere on the machine at that moment (openat2(2)) */
        fd = (int)syscall(SYS_openat2, root, path, &how, sizeof how);
    while (fd < 0 && errno == EAGAIN && ++tries < 100);
    return fd;
}

static int open_process_root(long pid) {
    char digits[24];
    size_t at = sizeof digits - 1;
    digits[at] = '\0';
    for (; pid > 0; pid /= 10)
        digits[--at] = (char)('0' + pid % 10);
    char path[64];
    const char *const pieces[] = {"/proc/", digits + at, "/root", NULL};
    if (!join(path, sizeof path, pieces))
        return -1;
    return open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* The container's future "/", as its process sees it now: runc has made the mounts, but not entered them yet. */
static refusal open_rootfs(const struct start *start, int *rootfs) {
    static char path[PATH_SPACE], named[PATH_SPACE];
    struct span text;
    struct stat info;
    const char *const config[] = {start->bundle, "/config.json", NULL};
    if (!join(path, sizeof path, config) || !read_file(path, document, DOCUMENT_MAX, &text, &info))
        return "the bundle's config.json cannot be read";
    refusal no = parse_config(text, named, sizeof named);
    if (no != NULL)
        return no;
    const char *const relative[] = {start->bundle, "/", named, NULL};
    const char *const absolute[] = {named, NULL};
    if (!join(path, sizeof path, named[0] == '/' ? absolute : relative))
        return "the container's root path is too long";
    int process_root = open_process_root(start->pid);
    if (process_root < 0)
        return "the container's process cannot be looked at";
    *rootfs = open_below(process_root, path);
    (void)close(process_root);
    return *rootfs < 0 ? "the container's root directory cannot be opened" : NULL;
}

static refusal check_mount(int rootfs, const struct mount_line *mount) {
    struct stat info;
    int fd = open_below(rootfs, mount->target);
    if (fd < 0)
        return "is not there";
    bool good = fstat(fd, &info) == 0 && info.st_dev == mount->dev && info.st_ino == mount->inode;
    (void)close(fd);
    return good ? NULL : "is not the directory that was checked when the container was created; put it back, or create the "
                         "container anew";
}

/* Says why, in one printable line, and gives the exit status. `target`: the mount it is about, or "". */
static int refuse(const char *target, refusal why) {
    static char line[PATH_SPACE + 512];
    const char *const pieces[] = {"ds01: cannot start: ", target, target[0] == '\0' ? "" : " ", why, "\n", NULL};
    if (!join(line, sizeof line, pieces))
        line[0] = '\0';
    size_t n = strlen(line);
    for (size_t i = 0; i + 1 < n; i++)
        if ((unsigned char)line[i] < ' ' || line[i] == 0x7F)
            line[i] = '?';
    (void)!write(STDERR_FILENO, line, n);
    return 1;
}

static refusal read_grant(const char *key, struct span *text) {
    static char path[sizeof GRANT_DIR + NAME_MAX_LENGTH + 2];
    const char *const pieces[] = {GRANT_DIR, "/", key, NULL};
    struct stat info;
    if (!join(path, sizeof path, pieces))
        return "its key is too long";
    if (!read_file(path, grant, GRANT_MAX, text, &info))
        return errno == ENOENT ? "it holds no allocation now; container-start asks for one"
                               : "its grant cannot be read; ds01ctl doctor says more";
    if (info.st_uid != 0 || (info.st_mode & (S_IWGRP | S_IWOTH)) != 0)
        return "its grant is not root's alone; ds01ctl doctor says more";
    return NULL;
}

int main(int argc, char **argv) {
    if (argc != 4 || !is_name(span_of(argv[1])) || !is_name(span_of(argv[2])) || !is_name(span_of(argv[3])))
        return refuse("", "the guard is called as cdi-guard KEY CONTAINER_ID GENERATION");
    const char *key = argv[1], *container = argv[2], *generation = argv[3];
    static struct start start;
    static struct mount_line mount;
    struct span text, rest;

    if (!read_all(STDIN_FILENO, document, DOCUMENT_MAX, &text))
        return refuse("", "the engine's description of this start cannot be read");
    refusal no = parse_state(text, &start);
    if (no != NULL)
        return refuse("", no);
    if (strcmp(start.id, container) != 0)
        return refuse("", "this device name belongs to another container");
    if ((no = read_grant(key, &rest)) != NULL || (no = parse_grant_head(&rest, container, generation)) != NULL)
        return refuse("", no);
    if (rest.at == rest.end)
        return 0;
    int rootfs = -1;
    if ((no = open_rootfs(&start, &rootfs)) != NULL)
        return refuse("", no);
    while (rest.at < rest.end) {
        if ((no = parse_mount(&rest, &mount)) != NULL)
            return refuse("", no);
        if ((no = check_mount(rootfs, &mount)) != NULL)
            return refuse(mount.target, no);
    }
    return 0;
}
