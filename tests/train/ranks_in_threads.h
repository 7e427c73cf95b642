/* Ranks as threads of this process: the collective of prefopt/train.h by a shared board. */
#ifndef PF_RANKS_IN_THREADS_H
#define PF_RANKS_IN_THREADS_H

#include <pthread.h>
#include <time.h>

#include "pf_test.h"

enum { MAX_RANKS = 8, RANK_SECONDS = 30 };

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t all_here;
    int64_t size, here, meeting;
    int64_t calls, fail_at; /* meetings so far; the one that fails on all ranks (0: none) */
    void *board;            /* the sum, or the root's bytes */
    size_t capacity;
    void *given[MAX_RANKS];
    int64_t asked[MAX_RANKS][3]; /* n, size, root of the call at hand */
} rank_hub;

typedef struct {
    rank_hub *hub;
    int64_t rank;
} rank_seat;

static inline void hub_init(rank_hub *hub, int64_t size)
{
    memset(hub, 0, sizeof *hub);
    hub->size = size;
    pthread_mutex_init(&hub->lock, NULL);
    pthread_cond_init(&hub->all_here, NULL);
}

static inline void hub_free(rank_hub *hub)
{
    free(hub->board);
    pthread_mutex_destroy(&hub->lock);
    pthread_cond_destroy(&hub->all_here);
}

/* Waits for all ranks; false when one does not come. */
static inline int hub_meet(rank_hub *hub)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += RANK_SECONDS;
    pthread_mutex_lock(&hub->lock);
    int64_t meeting = hub->meeting;
    int late = 0;
    if (++hub->here == hub->size) {
        hub->here = 0;
        hub->meeting++;
        pthread_cond_broadcast(&hub->all_here);
    }
    while (hub->meeting == meeting && late == 0)
        late = pthread_cond_timedwait(&hub->all_here, &hub->lock, &until);
    pthread_mutex_unlock(&hub->lock);
    return late == 0;
}

static inline void hub_room(rank_hub *hub, size_t bytes)
{
    if (bytes <= hub->capacity)
        return;
    free(hub->board);
    hub->board = malloc(bytes);
    hub->capacity = bytes;
}

static inline void hub_sum(rank_hub *hub, int64_t n, size_t size)
{
    hub_room(hub, (size_t)n * size);
    for (int64_t i = 0; i < n; i++) {
        double d = 0;
        float f = 0;
        for (int64_t r = 0; r < hub->size; r++)
            if (size == sizeof d)
                d += ((const double *)hub->given[r])[i];
            else
                f += ((const float *)hub->given[r])[i];
        if (size == sizeof d)
            ((double *)hub->board)[i] = d;
        else
            ((float *)hub->board)[i] = f;
    }
}

/* root < 0: a sum of n numbers of `size` bytes; else n * size bytes of root's. */
static inline int32_t hub_call(rank_seat *seat, void *values, int64_t n, size_t size, int64_t root)
{
    rank_hub *hub = seat->hub;
    size_t bytes = (size_t)n * size;
    const int64_t asked[] = {n, (int64_t)size, root};
    memcpy(hub->asked[seat->rank], asked, sizeof asked);
    hub->given[seat->rank] = values;
    if (!hub_meet(hub))
        return 99;
    for (int64_t r = 0; r < hub->size; r++)
        ck_assert_mem_eq(hub->asked[r], asked, sizeof asked); /* all ask for the same */
    if (seat->rank == 0) {
        hub->calls++;
        if (root < 0)
            hub_sum(hub, n, size);
        else
            hub_room(hub, bytes);
        if (root >= 0)
            memcpy(hub->board, hub->given[root], bytes);
    }
    if (!hub_meet(hub))
        return 99;
    int failed = hub->calls == hub->fail_at;
    if (!failed)
        memcpy(values, hub->board, bytes);
    if (!hub_meet(hub))
        return 99;
    return failed ? 7 : 0;
}

static inline int32_t hub_sum_f32(void *payload, float *values, int64_t n)
{
    return hub_call(payload, values, n, sizeof *values, -1);
}

static inline int32_t hub_sum_f64(void *payload, double *values, int64_t n)
{
    return hub_call(payload, values, n, sizeof *values, -1);
}

static inline int32_t hub_broadcast(void *payload, void *bytes, int64_t n, int64_t root)
{
    return hub_call(payload, bytes, n, 1, root);
}

static inline prefopt_collective hub_collective(rank_seat *seat)
{
    return (prefopt_collective){.struct_size = sizeof(prefopt_collective),
                                .rank = seat->rank,
                                .size = seat->hub->size,
                                .payload = seat,
                                .sum_f32 = hub_sum_f32,
                                .sum_f64 = hub_sum_f64,
                                .broadcast = hub_broadcast};
}

/* Runs `work(job, rank's collective)` on a thread for each rank. fail_at: as in rank_hub. */
typedef void rank_work(void *job, const prefopt_collective *collective);

typedef struct {
    rank_seat seat;
    rank_work *work;
    void *job;
} rank_thread;

static inline void *rank_main(void *payload)
{
    rank_thread *t = payload;
    prefopt_collective collective = hub_collective(&t->seat);
    t->work(t->job, &collective);
    return NULL;
}

/* Returns the number of calls that were made. */
static inline int64_t run_ranks(int64_t size, rank_work *work, void *job, int64_t fail_at)
{
    rank_hub hub;
    rank_thread threads[MAX_RANKS];
    pthread_t ids[MAX_RANKS];
    ck_assert_int_le(size, MAX_RANKS);
    hub_init(&hub, size);
    hub.fail_at = fail_at;
    for (int64_t r = 0; r < size; r++) {
        threads[r] = (rank_thread){.seat = {&hub, r}, .work = work, .job = job};
        ck_assert_int_eq(pthread_create(&ids[r], NULL, rank_main, &threads[r]), 0);
    }
    for (int64_t r = 0; r < size; r++)
        pthread_join(ids[r], NULL);
    int64_t calls = hub.calls;
    hub_free(&hub);
    return calls;
}

#endif
