/*
 * Feeds the guard's parsers from stdin, each document in a buffer of exactly its own size, so that the address sanitizer sees
 * one byte read too far. A case is: kind (s, c or g), four bytes of length (little-endian), the document. The verdict is one
 * line: "no", or "ok" and what was understood, texts as hex.
 */
#define main guard_main
#include "../../native/guard.c"
#undef main

#include <stdio.h>
#include <stdlib.h>

int guard_main(int argc, char **argv);

static void print_hex(const char *text) {
    putchar(' ');
    for (; *text != '\0'; text++)
        printf("%02x", (unsigned)(unsigned char)*text);
}

static void state(struct span text) {
    static struct start seen;
    if (parse_state(text, &seen) != NULL) {
        puts("no");
        return;
    }
    printf("ok %ld", seen.pid);
    print_hex(seen.id);
    print_hex(seen.bundle);
    putchar('\n');
}

static void config(struct span text) {
    static char rootfs[PATH_SPACE];
    if (parse_config(text, rootfs, sizeof rootfs) != NULL) {
        puts("no");
        return;
    }
    printf("ok");
    print_hex(rootfs);
    putchar('\n');
}

static void grant_of(struct span text, const char *container, const char *generation) {
    static struct mount_line mount;
    struct span rest = text;
    if (parse_grant_head(&rest, container, generation) != NULL) {
        puts("no");
        return;
    }
    for (struct span ahead = rest; ahead.at < ahead.end;)
        if (parse_mount(&ahead, &mount) != NULL) {
            puts("no");
            return;
        }
    printf("ok");
    while (rest.at < rest.end && parse_mount(&rest, &mount) == NULL) {
        printf(" %llu:%llu", (unsigned long long)mount.dev, (unsigned long long)mount.inode);
        print_hex(mount.target);
    }
    putchar('\n');
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    int kind;
    while ((kind = getchar()) != EOF) {
        unsigned char head[4];
        if (fread(head, 1, sizeof head, stdin) != sizeof head)
            return 2;
        size_t n = (size_t)head[0] | (size_t)head[1] << 8 | (size_t)head[2] << 16 | (size_t)head[3] << 24;
        char *text = malloc(n == 0 ? 1 : n);
        if (text == NULL || fread(text, 1, n, stdin) != n)
            return 2;
        struct span whole = {text, text + n};
        if (kind == 's')
            state(whole);
        else if (kind == 'c')
            config(whole);
        else
            grant_of(whole, argv[1], argv[2]);
        free(text);
    }
    return 0;
}
