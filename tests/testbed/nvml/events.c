/* The mock's events: a ring in the state, and sets that remember how far they have looked. */
#define _GNU_SOURCE
#include "mock.h"

#include <stdlib.h>
#include <time.h>

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
        if (!initialised()) rc = UNINITIALIZED;
    }
    return rc;
}

API int nvmlEventSetFree(struct event_set *set);
int nvmlEventSetFree(struct event_set *set) {
    free(set);
    return SUCCESS;
}
