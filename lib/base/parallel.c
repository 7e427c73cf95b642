/* The parallel loop: a pool of threads - 1 sleeping workers for each context, woken for one loop at
 * a time. Tasks are handed out by an atomic counter; since a task's result depends on its number
 * alone, who computes it does not matter. */
#include <pthread.h>
#include <stdatomic.h>

#include "base/pf_base.h"

struct pf_pool {
    pthread_mutex_t busy; /* held by the thread whose loop runs */
    pthread_mutex_t mutex;
    pthread_cond_t wake, done;
    uint64_t generation; /* a new loop has started */
    int32_t running;     /* workers inside it */
    bool quit;
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

static void *worker(void *argument)
{
    pf_pool *pool = argument;
    uint64_t seen = 0;
    pthread_mutex_lock(&pool->mutex);
    for (;;) {
        while (pool->generation == seen && !pool->quit)
            pthread_cond_wait(&pool->wake, &pool->mutex);
        if (pool->quit)
            break;
        seen = pool->generation;
        pthread_mutex_unlock(&pool->mutex);
        run_tasks(pool);
        pthread_mutex_lock(&pool->mutex);
        if (--pool->running == 0)
            pthread_cond_signal(&pool->done);
    }
    pthread_mutex_unlock(&pool->mutex);
    return NULL;
}

void pf_pool_destroy(prefopt_context *context, pf_pool *pool)
{
    pthread_mutex_lock(&pool->mutex);
    pool->quit = true;
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
    pool->running = pool->n_workers;
    pool->generation++;
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
    run_tasks(pool);
    pthread_mutex_lock(&pool->mutex);
    while (pool->running > 0)
        pthread_cond_wait(&pool->done, &pool->mutex);
    pthread_mutex_unlock(&pool->mutex);
    pthread_mutex_unlock(&pool->busy);
}
