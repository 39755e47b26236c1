/* The mapped state of the mock driver: one file, one layout, read by every call of every process.
 *
 * mock.py declares the same layout with ctypes; both sides check the magic number and the size, so drift fails loudly.
 * All fields are naturally aligned. A writer fills a row first and raises its count (or its `used` flag) last.
 */
#ifndef NVML_MOCK_STATE_H
#define NVML_MOCK_STATE_H

#include <stdint.h>

#define MOCK_MAGIC UINT64_C(0x314c4d564e313053) /* "S01NVML1", little endian */
#define MOCK_GPUS 16
#define MOCK_SLICES 8
#define MOCK_PROFILES 16
#define MOCK_PROCESSES 64
#define MOCK_FAULTS 64
#define MOCK_EVENTS 256
#define MOCK_NO_MIG UINT32_C(0xFFFFFFFF)
#define MOCK_NO_FIGURE UINT64_MAX

enum { KIND_COMPUTE = 0, KIND_GRAPHICS = 1, KIND_MPS = 2 };

struct process {
    uint32_t pid, kind;
    uint32_t gi, ci;  /* MOCK_NO_MIG when the GPU is not cut */
    uint32_t lingers; /* stays listed after the process has ended, as a sick driver does */
    uint32_t pad;
    uint64_t used; /* bytes, MOCK_NO_FIGURE = the driver does not say */
};

/* One row of the card's table. `number` is the enumerator asked for, `id` is what instances carry: two things. */
struct profile {
    uint32_t used, number, id, compute, size, instances;
    uint64_t memory; /* MiB */
    char name[32];   /* "MIG 2g.20gb" */
};

struct slice {
    uint32_t used, index, gi, ci;
    uint32_t profile_id, start, size, ci_compute;
    uint64_t total, held; /* bytes; held = with no process to show for it */
    char uuid[80];
};

struct gpu {
    uint32_t present, index, minor, lost;
    uint32_t mig, utilisation, utilisation_memory, temperature; /* %, %, degrees C */
    uint32_t power, power_limit;                                /* mW */
    uint32_t nvlink;                                            /* bit n = joined with the GPU in row n */
    uint32_t bus;
    uint64_t total, reserved, held; /* bytes */
    uint64_t energy;                /* mJ since the driver was loaded */
    uint32_t process_count, pad;
    char uuid[80], name[96];
    struct profile profiles[MOCK_PROFILES];
    struct slice slices[MOCK_SLICES];
    struct process processes[MOCK_PROCESSES];
};

struct fault {
    uint32_t used;
    int32_t gpu;      /* row of the GPU, -1 = any call */
    int32_t code;     /* 0 = only the delay */
    int32_t times;    /* left, -1 = for ever */
    uint64_t delay;   /* ms */
    char function[64]; /* "*" = every function */
};

struct event {
    uint32_t gpu, gi, ci, pad;
    uint64_t type, data;
};

struct state {
    uint64_t magic, size;
    uint64_t calls;      /* every call but nvmlErrorString */
    uint64_t event_head; /* events ever written; row = number % MOCK_EVENTS */
    int32_t init_result; /* what nvmlInit answers; other calls then say UNINITIALIZED */
    uint32_t generation; /* raised when the driver is loaded: older inits are void */
    uint32_t gpu_count;  /* rows in use, present or not */
    uint32_t no_permission, no_memory_v2, pad;
    char driver[80];
    char nvml[80];
    struct fault faults[MOCK_FAULTS];
    struct event events[MOCK_EVENTS];
    struct gpu gpus[MOCK_GPUS];
};

#endif
