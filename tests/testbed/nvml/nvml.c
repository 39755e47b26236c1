/* A stand-in for the driver's libnvidia-ml.so.1: answers from the mapped state file, keeps nothing of its own.
 *
 * Tests only; never installed. It knows what a probe asks (cards, slices, processes, memory, events) and no call that
 * changes a card. Return codes and struct sizes are those of NVIDIA's public header.
 */
#define _GNU_SOURCE
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define API __attribute__((visibility("default")))
#define DEFAULT_STATE "/run/nvml-mock/state"

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

static struct state *state;
static struct stat mapped_file;
static uint32_t generation; /* of the init that is in force, 0 = none */
static unsigned init_count;

API uint64_t mock_state_size(void);
uint64_t mock_state_size(void) { return sizeof(struct state); }

static int open_state(void) {
    const char *path = getenv("NVML_MOCK_STATE");
    struct stat seen;
    int fd = open(path ? path : DEFAULT_STATE, O_RDWR | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &seen) != 0 || (uint64_t)seen.st_size != sizeof(struct state)) {
        if (fd >= 0) close(fd);
        return DRIVER_NOT_LOADED;
    }
    if (state && (seen.st_ino != mapped_file.st_ino || seen.st_dev != mapped_file.st_dev)) {
        munmap(state, sizeof *state);
        state = NULL;
    }
    if (!state) {
        void *map = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        state = map == MAP_FAILED ? NULL : map;
        mapped_file = seen;
    }
    close(fd);
    return state && state->magic == MOCK_MAGIC && state->size == sizeof *state ? SUCCESS : DRIVER_NOT_LOADED;
}

/* The first fault row that fits is used up by one; its delay and code happen here. */
static int fault(const char *function, int gpu) {
    for (int i = 0; i < MOCK_FAULTS; i++) {
        struct fault *f = &state->faults[i];
        if (!f->used || f->times == 0 || (f->gpu != -1 && f->gpu != gpu)) continue;
        if (strcmp(f->function, "*") != 0 && strcmp(f->function, function) != 0) continue;
        int code = f->code;
        uint64_t delay = f->delay;
        if (f->times > 0) __atomic_fetch_sub(&f->times, 1, __ATOMIC_SEQ_CST);
        struct timespec left = {.tv_sec = (time_t)(delay / 1000), .tv_nsec = (long)(delay % 1000) * 1000000};
        while (delay && nanosleep(&left, &left) != 0 && errno == EINTR) {}
        return code;
    }
    return SUCCESS;
}

static int enter(const char *function, int gpu) {
    if (!state || !init_count) return UNINITIALIZED;
    __atomic_fetch_add(&state->calls, 1, __ATOMIC_SEQ_CST);
    if (state->init_result != SUCCESS || state->generation != generation) return UNINITIALIZED;
    return fault(function, gpu);
}

/* Which card or slice a handle means; handles are addresses inside the mapping, so a stale one is found out. */
static int resolve(device_t handle, struct target *t) {
    uintptr_t base = state ? (uintptr_t)state->gpus : 0;
    uintptr_t offset = (uintptr_t)handle - base;
    if (!state || (uintptr_t)handle < base || offset >= sizeof state->gpus) return INVALID_ARGUMENT;
    t->gpu = &state->gpus[offset / sizeof(struct gpu)];
    t->slice = NULL;
    if (!t->gpu->present) return INVALID_ARGUMENT;
    uintptr_t inside = offset % sizeof(struct gpu);
    if (inside == 0) return SUCCESS;
    if (inside < offsetof(struct gpu, slices) || inside >= offsetof(struct gpu, processes)) return INVALID_ARGUMENT;
    inside -= offsetof(struct gpu, slices);
    t->slice = &t->gpu->slices[inside / sizeof(struct slice)];
    if (inside % sizeof(struct slice) || !t->gpu->mig || !t->slice->used) return INVALID_ARGUMENT;
    return SUCCESS;
}

static int enter_device(const char *function, device_t handle, struct target *t) {
    int bad = resolve(handle, t);
    int rc = enter(function, bad ? -1 : (int)(t->gpu - state->gpus));
    if (rc || bad) return rc ? rc : bad;
    return t->gpu->lost ? GPU_IS_LOST : SUCCESS;
}

/* Begins every function that takes a device; `t` is what its handle means. */
#define ENTER(handle)                                  \
    struct target t;                                   \
    int rc_ = enter_device(__func__, (handle), &t);    \
    if (rc_) return rc_

#define ENTER_CARD(handle) \
    ENTER(handle);         \
    if (t.slice) return NOT_SUPPORTED

static int text(char *to, unsigned room, const char *from) {
    return snprintf(to, room, "%s", from) < (int)room ? SUCCESS : INSUFFICIENT_SIZE;
}

/* --- the library -------------------------------------------------------------------------------------------- */

API int nvmlInitWithFlags(unsigned flags);
int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    int rc = open_state();
    if (rc) return rc;
    __atomic_fetch_add(&state->calls, 1, __ATOMIC_SEQ_CST);
    if (state->init_result) return state->init_result;
    rc = fault("nvmlInitWithFlags", -1);
    if (rc) return rc;
    generation = state->generation;
    init_count++;
    return SUCCESS;
}

API int nvmlInit_v2(void);
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

API int nvmlShutdown(void);
int nvmlShutdown(void) {
    if (init_count) init_count--;
    return SUCCESS;
}

API const char *nvmlErrorString(int code);
const char *nvmlErrorString(int code) {
    switch (code) {
    case 19: return "In use by another client";
    case 23: return "Insufficient Resources";
    case 25: return "Argument version mismatch";
    default: return "Unknown Error";
    }
}

API int nvmlSystemGetDriverVersion(char *to, unsigned room);
int nvmlSystemGetDriverVersion(char *to, unsigned room) {
    int rc = enter(__func__, -1);
    return rc ? rc : text(to, room, state->driver);
}

API int nvmlSystemGetNVMLVersion(char *to, unsigned room);
int nvmlSystemGetNVMLVersion(char *to, unsigned room) { /* works without init */
    return state || open_state() == SUCCESS ? text(to, room, state->nvml) : DRIVER_NOT_LOADED;
}

/* --- cards -------------------------------------------------------------------------------------------------- */

API int nvmlDeviceGetCount_v2(unsigned *count);
int nvmlDeviceGetCount_v2(unsigned *count) {
    int rc = enter(__func__, -1);
    if (rc) return rc;
    *count = 0;
    for (unsigned i = 0; i < state->gpu_count; i++) *count += state->gpus[i].present != 0;
    return SUCCESS;
}

API int nvmlDeviceGetHandleByIndex_v2(unsigned index, device_t *device);
int nvmlDeviceGetHandleByIndex_v2(unsigned index, device_t *device) {
    int row = -1;
    for (unsigned i = 0; state && i < state->gpu_count; i++)
        if (state->gpus[i].present && state->gpus[i].index == index) row = (int)i;
    int rc = enter(__func__, row);
    if (rc || row < 0) return rc ? rc : INVALID_ARGUMENT;
    *device = &state->gpus[row];
    return state->gpus[row].lost ? GPU_IS_LOST : SUCCESS;
}

API int nvmlDeviceGetHandleByUUID(const char *uuid, device_t *device);
int nvmlDeviceGetHandleByUUID(const char *uuid, device_t *device) {
    int rc = enter(__func__, -1);
    if (rc) return rc;
    for (unsigned i = 0; i < state->gpu_count; i++) /* one lost card spoils the look-up of every other, as in the field */
        if (state->gpus[i].present && state->gpus[i].lost) return GPU_IS_LOST;
    for (unsigned i = 0; i < state->gpu_count; i++) {
        struct gpu *g = &state->gpus[i];
        if (!g->present) continue;
        if (strcmp(g->uuid, uuid) == 0) { *device = g; return SUCCESS; }
        for (int s = 0; g->mig && s < MOCK_SLICES; s++)
            if (g->slices[s].used && strcmp(g->slices[s].uuid, uuid) == 0) { *device = &g->slices[s]; return SUCCESS; }
    }
    return NOT_FOUND;
}

API int nvmlDeviceGetUUID(device_t device, char *to, unsigned room);
int nvmlDeviceGetUUID(device_t device, char *to, unsigned room) {
    ENTER(device);
    return text(to, room, t.slice ? t.slice->uuid : t.gpu->uuid);
}

API int nvmlDeviceGetName(device_t device, char *to, unsigned room);
int nvmlDeviceGetName(device_t device, char *to, unsigned room) {
    ENTER(device);
    return text(to, room, t.gpu->name);
}

API int nvmlDeviceGetIndex(device_t device, unsigned *index);
int nvmlDeviceGetIndex(device_t device, unsigned *index) {
    ENTER(device);
    *index = t.slice ? t.slice->index : t.gpu->index;
    return SUCCESS;
}

API int nvmlDeviceGetMinorNumber(device_t device, unsigned *minor);
int nvmlDeviceGetMinorNumber(device_t device, unsigned *minor) {
    ENTER_CARD(device);
    *minor = t.gpu->minor;
    return SUCCESS;
}

API int nvmlDeviceGetPciInfo_v3(device_t device, struct pci *pci);
int nvmlDeviceGetPciInfo_v3(device_t device, struct pci *pci) {
    ENTER_CARD(device);
    *pci = (struct pci){.bus = t.gpu->bus, .id = 0x233010de};
    snprintf(pci->legacy, sizeof pci->legacy, "0000:%02X:00.0", t.gpu->bus & 0xffu);
    snprintf(pci->bus_id, sizeof pci->bus_id, "00000000:%02X:00.0", t.gpu->bus & 0xffu);
    return SUCCESS;
}

API int nvmlDeviceGetP2PStatus(device_t one, device_t other, int what, int *status);
int nvmlDeviceGetP2PStatus(device_t one, device_t other, int what, int *status) {
    ENTER_CARD(one);
    struct target peer;
    int rc = resolve(other, &peer);
    if (rc) return rc;
    if (t.gpu->mig || peer.gpu->mig) return NOT_SUPPORTED;
    int joined = what == 2 && (t.gpu->nvlink >> (peer.gpu - state->gpus)) & 1;
    *status = joined ? 0 : 5; /* OK, or NOT_SUPPORTED */
    return SUCCESS;
}

/* --- figures ------------------------------------------------------------------------------------------------ */

static int listed(const struct process *p) { return p->lingers || kill((pid_t)p->pid, 0) == 0 || errno == EPERM; }

static int belongs(const struct target *t, const struct process *p) {
    return !t->slice || (p->gi == t->slice->gi && p->ci == t->slice->ci);
}

/* Memory in use: what is held without a process, and what the listed processes hold. */
static uint64_t in_use(const struct target *t) {
    uint64_t used = t->slice ? t->slice->held : t->gpu->held;
    for (int s = 0; !t->slice && s < MOCK_SLICES; s++)
        if (t->gpu->mig && t->gpu->slices[s].used) used += t->gpu->slices[s].held;
    for (uint32_t i = 0; i < t->gpu->process_count; i++) {
        const struct process *p = &t->gpu->processes[i];
        if (p->used != MOCK_NO_FIGURE && belongs(t, p) && listed(p)) used += p->used;
    }
    uint64_t total = t->slice ? t->slice->total : t->gpu->total;
    return used > total ? total : used;
}

API int nvmlDeviceGetMemoryInfo(device_t device, struct memory_v1 *memory);
int nvmlDeviceGetMemoryInfo(device_t device, struct memory_v1 *memory) {
    ENTER(device);
    memory->total = t.slice ? t.slice->total : t.gpu->total;
    memory->used = in_use(&t) + (t.slice ? 0 : t.gpu->reserved); /* v1 counts the reserved part as used */
    if (memory->used > memory->total) memory->used = memory->total;
    memory->free = memory->total - memory->used;
    return SUCCESS;
}

API int nvmlDeviceGetMemoryInfo_v2(device_t device, struct memory_v2 *memory);
int nvmlDeviceGetMemoryInfo_v2(device_t device, struct memory_v2 *memory) {
    ENTER(device);
    if (state->no_memory_v2) return FUNCTION_NOT_FOUND;
    if (memory->version != (2u << 24 | sizeof *memory)) return VERSION_MISMATCH;
    memory->total = t.slice ? t.slice->total : t.gpu->total;
    memory->reserved = t.slice ? 0 : t.gpu->reserved;
    memory->used = in_use(&t);
    memory->free = memory->total - memory->used - memory->reserved;
    return SUCCESS;
}

API int nvmlDeviceGetUtilizationRates(device_t device, struct utilization *rates);
int nvmlDeviceGetUtilizationRates(device_t device, struct utilization *rates) {
    ENTER(device);
    if (t.slice || t.gpu->mig) return NOT_SUPPORTED;
    *rates = (struct utilization){t.gpu->utilisation, t.gpu->utilisation_memory};
    return SUCCESS;
}

static int processes(const char *function, device_t device, uint32_t kind, unsigned *count, struct process_row *rows) {
    struct target t;
    int rc = enter_device(function, device, &t);
    if (rc) return rc;
    if (t.gpu->mig && !t.slice && state->no_permission) return NO_PERMISSION;
    unsigned room = rows ? *count : 0, found = 0;
    for (uint32_t i = 0; i < t.gpu->process_count; i++) {
        const struct process *p = &t.gpu->processes[i];
        if (p->kind != kind || !belongs(&t, p) || !listed(p)) continue;
        if (found < room) rows[found] = (struct process_row){p->pid, p->used, p->gi, p->ci};
        found++;
    }
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

#define PROCESS_LIST(name, kind)                                                           \
    API int name(device_t device, unsigned *count, struct process_row *rows);              \
    int name(device_t device, unsigned *count, struct process_row *rows) {                 \
        return processes(__func__, device, kind, count, rows);                             \
    }
PROCESS_LIST(nvmlDeviceGetComputeRunningProcesses_v3, KIND_COMPUTE)
PROCESS_LIST(nvmlDeviceGetGraphicsRunningProcesses_v3, KIND_GRAPHICS)
PROCESS_LIST(nvmlDeviceGetMPSComputeRunningProcesses_v3, KIND_MPS)

#define CARD_FIGURE(name, type, field)              \
    API int name(device_t device, type *figure);    \
    int name(device_t device, type *figure) {       \
        ENTER_CARD(device);                         \
        *figure = t.gpu->field;                     \
        return SUCCESS;                             \
    }
CARD_FIGURE(nvmlDeviceGetPowerUsage, unsigned, power)
CARD_FIGURE(nvmlDeviceGetEnforcedPowerLimit, unsigned, power_limit)
typedef unsigned long long millijoules;
CARD_FIGURE(nvmlDeviceGetTotalEnergyConsumption, millijoules, energy)

API int nvmlDeviceGetTemperature(device_t device, int sensor, unsigned *degrees);
int nvmlDeviceGetTemperature(device_t device, int sensor, unsigned *degrees) {
    ENTER_CARD(device);
    if (sensor != 0) return INVALID_ARGUMENT;
    *degrees = t.gpu->temperature;
    return SUCCESS;
}

/* --- slices ------------------------------------------------------------------------------------------------- */

API int nvmlDeviceGetMigMode(device_t device, unsigned *current, unsigned *pending);
int nvmlDeviceGetMigMode(device_t device, unsigned *current, unsigned *pending) {
    ENTER_CARD(device);
    if (!t.gpu->profiles[0].used) return NOT_SUPPORTED;
    *current = *pending = t.gpu->mig;
    return SUCCESS;
}

API int nvmlDeviceGetMaxMigDeviceCount(device_t device, unsigned *count);
int nvmlDeviceGetMaxMigDeviceCount(device_t device, unsigned *count) {
    ENTER_CARD(device);
    *count = 0;
    for (int i = 0; i < MOCK_PROFILES; i++)
        if (t.gpu->profiles[i].used && t.gpu->profiles[i].instances > *count) *count = t.gpu->profiles[i].instances;
    return SUCCESS;
}

API int nvmlDeviceGetMigDeviceHandleByIndex(device_t device, unsigned index, device_t *slice);
int nvmlDeviceGetMigDeviceHandleByIndex(device_t device, unsigned index, device_t *slice) {
    ENTER_CARD(device);
    if (!t.gpu->mig) return INVALID_ARGUMENT;
    for (int i = 0; i < MOCK_SLICES; i++)
        if (t.gpu->slices[i].used && t.gpu->slices[i].index == index) { *slice = &t.gpu->slices[i]; return SUCCESS; }
    return NOT_FOUND;
}

API int nvmlDeviceIsMigDeviceHandle(device_t device, unsigned *is_slice);
int nvmlDeviceIsMigDeviceHandle(device_t device, unsigned *is_slice) {
    ENTER(device);
    *is_slice = t.slice != NULL;
    return SUCCESS;
}

API int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device_t device, device_t *parent);
int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device_t device, device_t *parent) {
    ENTER(device);
    *parent = t.gpu;
    return t.slice ? SUCCESS : INVALID_ARGUMENT;
}

API int nvmlDeviceGetGpuInstanceId(device_t device, unsigned *id);
int nvmlDeviceGetGpuInstanceId(device_t device, unsigned *id) {
    ENTER(device);
    if (!t.slice) return NOT_SUPPORTED;
    *id = t.slice->gi;
    return SUCCESS;
}

API int nvmlDeviceGetComputeInstanceId(device_t device, unsigned *id);
int nvmlDeviceGetComputeInstanceId(device_t device, unsigned *id) {
    ENTER(device);
    if (!t.slice) return NOT_SUPPORTED;
    *id = t.slice->ci;
    return SUCCESS;
}

static const struct profile *profile_of(const struct gpu *g, uint32_t id) {
    for (int i = 0; i < MOCK_PROFILES; i++)
        if (g->profiles[i].used && g->profiles[i].id == id) return &g->profiles[i];
    return NULL;
}

API int nvmlDeviceGetAttributes_v2(device_t device, struct attributes *attributes);
int nvmlDeviceGetAttributes_v2(device_t device, struct attributes *attributes) {
    ENTER(device);
    const struct profile *p = t.slice ? profile_of(t.gpu, t.slice->profile_id) : NULL;
    if (!p) return t.slice ? UNKNOWN : NOT_SUPPORTED;
    *attributes = (struct attributes){.gi_slices = p->compute, .ci_slices = t.slice->ci_compute, .memory = t.slice->total >> 20};
    return SUCCESS;
}

/* A GPU instance's handle is the address of its first slice's `gi` field: of the mapping, and no device handle. */
API int nvmlDeviceGetGpuInstanceById(device_t device, unsigned id, void **instance);
int nvmlDeviceGetGpuInstanceById(device_t device, unsigned id, void **instance) {
    ENTER_CARD(device);
    if (state->no_permission) return NO_PERMISSION;
    if (!t.gpu->mig) return NOT_SUPPORTED;
    for (int i = 0; i < MOCK_SLICES; i++)
        if (t.gpu->slices[i].used && t.gpu->slices[i].gi == id) { *instance = &t.gpu->slices[i].gi; return SUCCESS; }
    return NOT_FOUND;
}

API int nvmlGpuInstanceGetInfo(void *instance, struct gi_info *info);
int nvmlGpuInstanceGetInfo(void *instance, struct gi_info *info) {
    ENTER((char *)instance - offsetof(struct slice, gi));
    if (!t.slice) return INVALID_ARGUMENT;
    *info = (struct gi_info){t.gpu, t.slice->gi, t.slice->profile_id, t.slice->start, t.slice->size};
    return SUCCESS;
}

API int nvmlDeviceGetGpuInstanceProfileInfoV(device_t device, unsigned number, struct profile_info *info);
int nvmlDeviceGetGpuInstanceProfileInfoV(device_t device, unsigned number, struct profile_info *info) {
    ENTER_CARD(device);
    if (info->version != (2u << 24 | sizeof *info)) return VERSION_MISMATCH;
    for (int i = 0; i < MOCK_PROFILES; i++) {
        const struct profile *p = &t.gpu->profiles[i];
        if (!p->used || p->number != number) continue;
        info->id = p->id;
        info->slices = p->compute;
        info->instances = p->instances;
        info->memory = p->memory;
        return text(info->name, sizeof info->name, p->name);
    }
    return NOT_SUPPORTED;
}

/* --- events ------------------------------------------------------------------------------------------------- */

struct event_set {
    uint64_t next; /* the first event number not yet looked at */
    uint64_t types[MOCK_GPUS];
};

API int nvmlDeviceGetSupportedEventTypes(device_t device, uint64_t *types);
int nvmlDeviceGetSupportedEventTypes(device_t device, uint64_t *types) {
    ENTER_CARD(device);
    *types = 0x8 | 0x100 | 0x4000 | 0x8000; /* Xid, MIG change, GPU unavailable, recovery action */
    return SUCCESS;
}

API int nvmlEventSetCreate(struct event_set **set);
int nvmlEventSetCreate(struct event_set **set) {
    int rc = enter(__func__, -1);
    if (rc) return rc;
    *set = calloc(1, sizeof **set);
    if (!*set) return UNKNOWN;
    (*set)->next = __atomic_load_n(&state->event_head, __ATOMIC_SEQ_CST);
    return SUCCESS;
}

API int nvmlDeviceRegisterEvents(device_t device, uint64_t types, struct event_set *set);
int nvmlDeviceRegisterEvents(device_t device, uint64_t types, struct event_set *set) {
    ENTER_CARD(device);
    set->types[t.gpu - state->gpus] |= types;
    return SUCCESS;
}

API int nvmlEventSetWait_v2(struct event_set *set, struct event_row *row, unsigned timeout_ms);
int nvmlEventSetWait_v2(struct event_set *set, struct event_row *row, unsigned timeout_ms) {
    int rc = enter(__func__, -1);
    for (unsigned waited = 0; !rc; waited += 2) {
        while (set->next < __atomic_load_n(&state->event_head, __ATOMIC_SEQ_CST)) {
            const struct event *e = &state->events[set->next++ % MOCK_EVENTS];
            if (e->gpu >= MOCK_GPUS || !(set->types[e->gpu] & e->type)) continue;
            *row = (struct event_row){&state->gpus[e->gpu], e->type, e->data, e->gi, e->ci};
            return SUCCESS;
        }
        if (waited >= timeout_ms) return TIMEOUT;
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
        if (state->init_result || state->generation != generation) rc = UNINITIALIZED;
    }
    return rc;
}

API int nvmlEventSetFree(struct event_set *set);
int nvmlEventSetFree(struct event_set *set) {
    free(set);
    return SUCCESS;
}
