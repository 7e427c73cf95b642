/* The parallel loop: a pool of threads - 1 workers for each context, woken for one loop at a time.
 * Tasks are handed out by an atomic counter; since a task's result depends on its number alone, who
 * computes it does not matter.
 *
 * Loops that follow each other within microseconds (a model's layers) must not pay for going to
 * sleep and waking: a worker without work looks out for the next loop for a moment before it
 * sleeps, and so does a loop's owner for the last worker's end. A worker that wakes too late, on a
 * machine with other work, misses the loop: nobody waits for it. */
#include <pthread.h>
#include <stdatomic.h>

#include "base/pf_base.h"

struct pf_pool {
    pthread_mutex_t busy; /* held by the thread whose loop runs */
    pthread_mutex_t mutex;
    pthread_cond_t wake, done;
    /* All of these change under the mutex; the atomic ones are looked at without. */
    _Atomic uint64_t generation; /* a new loop has started, or quit was set */
    _Atomic int32_t running;     /* workers inside it */
    bool open;                   /* workers may enter it */
    bool quit;
    int32_t sleeping; /* workers that wait for `wake` */
    int32_t n_workers;
    pthread_t *workers;
    pf_task_fn *fn;
    void *payload;
    int64_t n_tasks;
    _Atomic int64_t next;
};

static void run_tasks(pf_pool *pool)
{
    for (;;) {
        int64_t task = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (task >= pool->n_tasks)
            return;
        pool->fn(pool->payload, task);
    }
}

/* About 100 microseconds: a sleeping worker wakes no sooner on a virtual machine. */
enum { LOOKS = 5000 };

static inline void pause_a_little(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* The mutex is held; when it returns, again, there is a loop the worker has not seen, or quit. */
static void await_loop(pf_pool *pool, uint64_t seen)
{
    pthread_mutex_unlock(&pool->mutex);
    for (int32_t i = 0; i < LOOKS && atomic_load(&pool->generation) == seen; i++)
        pause_a_little();
    pthread_mutex_lock(&pool->mutex);
    while (atomic_load(&pool->generation) == seen) {
        pool->sleeping++;
        pthread_cond_wait(&pool->wake, &pool->mutex);
        pool->sleeping--;
    }
}

static void *worker(void *argument)
{
    pf_pool *pool = argument;
    uint64_t seen = 0;
    pthread_mutex_lock(&pool->mutex);
    for (;;) {
        await_loop(pool, seen);
        seen = atomic_load(&pool->generation);
        if (pool->quit)
            break;
        if (!pool->open)
            continue;
        atomic_fetch_add(&pool->running, 1);
        pthread_mutex_unlock(&pool->mutex);
        run_tasks(pool);
        pthread_mutex_lock(&pool->mutex);
        if (atomic_fetch_sub(&pool->running, 1) == 1)
            pthread_cond_signal(&pool->done);
    }
    pthread_mutex_unlock(&pool->mutex);
    return NULL;
}

void pf_pool_destroy(prefopt_context *context, pf_pool *pool)
{
    pthread_mutex_lock(&pool->mutex);
    pool->quit = true;
    atomic_fetch_add(&pool->generation, 1);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
    for (int32_t i = 0; i < pool->n_workers; i++)
        pthread_join(pool->workers[i], NULL);
    pthread_cond_destroy(&pool->wake);
    pthread_cond_destroy(&pool->done);
    pthread_mutex_destroy(&pool->mutex);
    pthread_mutex_destroy(&pool->busy);
    pf_free(context, pool->workers);
    pf_free(context, pool);
}

/* The context's pool, made at first use; NULL when it cannot be made (the loop then runs serially,
 * with the same bits). */
static pf_pool *get_pool(prefopt_context *context)
{
    _Atomic(pf_pool *) *slot = pf_context_pool(context);
    pf_pool *pool = atomic_load_explicit(slot, memory_order_acquire);
    if (pool != NULL)
        return pool;
    int32_t wanted = prefopt_context_threads(context) - 1;
    pool = pf_calloc(context, 1, sizeof *pool);
    if (pool == NULL)
        return NULL;
    pool->workers = pf_alloc(context, wanted, sizeof *pool->workers);
    if (pool->workers == NULL) {
        pf_free(context, pool);
        return NULL;
    }
    pthread_mutex_init(&pool->busy, NULL);
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pthread_cond_init(&pool->done, NULL);
    while (pool->n_workers < wanted &&
           pthread_create(&pool->workers[pool->n_workers], NULL, worker, pool) == 0)
        pool->n_workers++;
    pf_pool *other = NULL;
    if (!atomic_compare_exchange_strong(slot, &other, pool)) {
        pf_pool_destroy(context, pool);
        pool = other;
    }
    return pool;
}

void pf_parallel_for(prefopt_context *context, int64_t n_tasks, pf_task_fn *fn, void *payload)
{
    pf_pool *pool = NULL;
    if (n_tasks > 1 && prefopt_context_threads(context) > 1)
        pool = get_pool(context);
    if (pool == NULL || pthread_mutex_trylock(&pool->busy) != 0) {
        for (int64_t task = 0; task < n_tasks; task++)
            fn(payload, task);
        return;
    }
    pthread_mutex_lock(&pool->mutex);
    pool->fn = fn;
    pool->payload = payload;
    pool->n_tasks = n_tasks;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    pool->open = true;
    atomic_fetch_add(&pool->generation, 1);
    if (pool->sleeping > 0)
        pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
    run_tasks(pool);
    for (int32_t i = 0; i < LOOKS && atomic_load(&pool->running) > 0; i++)
        pause_a_little();
    pthread_mutex_lock(&pool->mutex);
    pool->open = false;
    while (atomic_load(&pool->running) > 0)
        pthread_cond_wait(&pool->done, &pool->mutex);
    pthread_mutex_unlock(&pool->mutex);
    pthread_mutex_unlock(&pool->busy);
}
