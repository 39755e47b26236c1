/* What the parts of the mock share: NVML's codes and structs, and the one way into every call. */
#ifndef NVML_MOCK_H
#define NVML_MOCK_H

#include "state.h"

#define API __attribute__((visibility("default")))

enum {
    SUCCESS = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NO_PERMISSION = 4,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9,
    TIMEOUT = 10,
    FUNCTION_NOT_FOUND = 13,
    GPU_IS_LOST = 15,
    VERSION_MISMATCH = 25,
    UNKNOWN = 999,
};

typedef void *device_t;

struct target { /* what a device handle stands for: a card, or a slice of it */
    struct gpu *gpu;
    struct slice *slice;
};

struct memory_v1 { uint64_t total, free, used; };
struct memory_v2 { uint32_t version; uint64_t total, reserved, free, used; };
struct utilization { uint32_t gpu, memory; };
struct process_row { uint32_t pid; uint64_t used; uint32_t gi, ci; };
struct pci { char legacy[16]; uint32_t domain, bus, device, id, subsystem; char bus_id[32]; };
struct attributes { uint32_t sm, engines[5], gi_slices, ci_slices; uint64_t memory; };
struct gi_info { device_t device; uint32_t id, profile_id, start, size; };
struct event_row { device_t device; uint64_t type, data; uint32_t gi, ci; };
struct profile_info {
    uint32_t version, id, p2p, slices, instances, sm, engines[5];
    uint64_t memory;
    char name[96];
};
_Static_assert(sizeof(struct memory_v2) == 40 && sizeof(struct process_row) == 24 && sizeof(struct pci) == 68, "NVML's sizes");
_Static_assert(sizeof(struct profile_info) == 152 && sizeof(struct event_row) == 32 && sizeof(struct attributes) == 40, "NVML's sizes");

extern struct state *state;

/* Every call comes in here: is the driver there, which fault happens now; then the count. `gpu` is a row or -1. */
int enter(const char *function, int gpu);
int enter_device(const char *function, device_t handle, struct target *t);
int resolve(device_t handle, struct target *t);
int initialised(void);
int text(char *to, unsigned room, const char *from);

/* Begins every function that takes a device; `t` is what its handle means. */
#define ENTER(handle)                                  \
    struct target t;                                   \
    int rc_ = enter_device(__func__, (handle), &t);    \
    if (rc_) return rc_

#define ENTER_CARD(handle) \
    ENTER(handle);         \
    if (t.slice) return NOT_SUPPORTED

#endif
