/* The jobs of the gap study: which there are, on how many threads, what is already done. One job is
 * one seed with a context of its own, so jobs do not wait for each other. */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>

#include "cli.h"
#include "studies.h"

const double gap_rates[GAP_RATES] = {3e-4, 1e-3, 3e-3};
const double gap_betas[GAP_BETAS] = {0.03, 0.1, 0.3};
const int64_t gap_pair_sizes[GAP_PAIR_SIZES] = {250, 500, 1000, 2000, 4000, 8000};

enum { MAX_JOBS = 2000, MAX_THREADS = 64 };

/* In the names of jobs. A world that is changed takes another name here: results that stand in a
 * file are of the world that was. */
static const char *const kind_key[] = {"walk", "one-step", "hidden-shared", "sudoku-cells"};
static const char *const job_key[] = {"main", "tuned", "pairs", "grid"};

typedef struct {
    const gap_study *study;
    gap_job *jobs;
    int n_jobs, to_do;
    gap_results results; /* written under the lock */
    pthread_mutex_t lock;
    _Atomic int next, done;
    struct timespec start;
} crew;

static void name_job(const gap_study *s, gap_job *job)
{
    const gap_sizes *z = &s->sizes;
    uint64_t digest = 14695981039346656037u; /* FNV-1a of what else the numbers hang on */
    for (int arm = 0; arm < N_GAP_ARMS; arm++) {
        char text[96];
        if (!(s->arms >> arm & 1))
            continue;
        int n = snprintf(text, sizeof text, "%d %.9g %.9g %lld %lld", arm,
                         job->setting[arm].learning_rate, job->setting[arm].beta,
                         (long long)job->setting[arm].steps, (long long)z->fresh_samples);
        for (int i = 0; i < n; i++)
            digest = (digest ^ (uint8_t)text[i]) * 1099511628211u;
    }
    snprintf(job->name, sizeof job->name, "%s %s seed=%d %s pairs=%lld sft=%lld n=%lld set=%08llx",
             kind_key[s->kind], job_key[job->kind], job->seed, z->mask ? "mask" : "learnt",
             (long long)job->n_pairs, (long long)z->sft_steps, (long long)z->samples,
             (unsigned long long)(digest >> 32));
}

static gap_job *add_job(crew *c, gap_job_kind kind, int seed, int64_t n_pairs,
                        const gap_setting *setting, int per_arm)
{
    if (c->n_jobs == MAX_JOBS) {
        fprintf(stderr, "more than %d jobs\n", MAX_JOBS);
        exit(2);
    }
    gap_job *job = &c->jobs[c->n_jobs++];
    *job = (gap_job){.kind = kind, .seed = seed, .n_pairs = n_pairs};
    for (int arm = 0; arm < N_GAP_ARMS; arm++)
        job->setting[arm] = setting[per_arm ? arm : 0];
    name_job(c->study, job);
    job->done = gap_results_find(&c->results, job->name) != NULL;
    c->to_do += !job->done;
    return job;
}

static void make_jobs(crew *c, const gap_setting *tuned)
{
    const gap_study *s = c->study;
    for (int i = 0; i < s->n_seeds; i++) {
        int seed = s->first_seed + i;
        for (int at = 0; s->grid && at < GAP_RATES * GAP_BETAS; at++) {
            gap_setting g = {gap_rates[at / GAP_BETAS], gap_betas[at % GAP_BETAS],
                             s->grid_steps[GAP_STEPS - 1]};
            add_job(c, JOB_GRID, seed, s->sizes.n_pairs, &g, 0);
        }
        if (s->grid)
            continue;
        add_job(c, JOB_MAIN, seed, s->sizes.n_pairs, &s->setting, 0);
        if (tuned != NULL)
            add_job(c, JOB_TUNED, seed, s->sizes.n_pairs, tuned, 1);
        for (int size = 0; s->curve && size < GAP_PAIR_SIZES; size++)
            add_job(c, JOB_PAIRS, seed, gap_pair_sizes[size], tuned != NULL ? tuned : &s->setting,
                    tuned != NULL);
    }
}

static int in_job(const gap_study *s, const gap_job *job, int arm)
{
    if (job->kind == JOB_PAIRS)
        return arm == ARM_OFFLINE || arm == ARM_ONE_TOP || arm == ARM_ONE_RANDOM;
    int needs_offline = (s->arms >> ARM_ONE_FROM_DPO & 1) || (s->arms >> ARM_FRESH_FROM_DPO & 1);
    return (s->arms >> arm & 1) || (arm == ARM_OFFLINE && needs_offline);
}

static void run_job(const gap_study *s, const gap_job *job, gap_record *out)
{
    gap_models m;
    gap_sizes sizes = s->sizes;
    struct timespec begin, end;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begin);
    sizes.n_pairs = job->n_pairs;
    snprintf(out->job, sizeof out->job, "%s", job->name);
    gap_models_create(&m, s->kind, (uint64_t)job->seed, &sizes, out);
    for (int arm = 0; arm < N_GAP_ARMS; arm++) {
        const gap_setting *setting = &job->setting[arm];
        int64_t checkpoint[GAP_STEPS] = {setting->steps / 3, 2 * setting->steps / 3,
                                         setting->steps};
        if (!in_job(s, job, arm))
            continue;
        if (job->kind == JOB_GRID)
            memcpy(checkpoint, s->grid_steps, sizeof checkpoint);
        int all = job->kind == JOB_GRID || job->kind == JOB_MAIN;
        gap_arm_run(&m, arm, setting, all ? GAP_STEPS : 1, all ? checkpoint : &setting->steps,
                    job->kind == JOB_MAIN || job->kind == JOB_TUNED, out);
    }
    if (job->kind == JOB_GRID) {
        gap_put(out, job->setting[0].learning_rate, "grid.rate");
        gap_put(out, job->setting[0].beta, "grid.beta");
    } else
        gap_judges_run(&m, &job->setting[ARM_OFFLINE], out);
    gap_models_destroy(&m);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
    gap_put(out, (double)(end.tv_sec - begin.tv_sec) + 1e-9 * (double)(end.tv_nsec - begin.tv_nsec),
            "seconds");
}

static void keep(crew *c, const gap_record *record)
{
    pthread_mutex_lock(&c->lock);
    if (c->study->results != NULL)
        gap_results_append(c->study->results, record);
    gap_results *r = &c->results;
    r->records = realloc(r->records, (size_t)(r->n + 1) * sizeof *r->records);
    if (r->records == NULL)
        exit(1);
    r->records[r->n++] = *record;
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    double elapsed = (double)(now.tv_sec - c->start.tv_sec);
    int done = ++c->done;
    fprintf(stderr, "%d of %d jobs, %.0f CPU seconds for %s; %.1f jobs an hour, %.0f min left\n",
            done, c->to_do, gap_get(record, "seconds"), record->job,
            elapsed > 0 ? 3600 * done / elapsed : 0.0, elapsed / done * (c->to_do - done) / 60);
    pthread_mutex_unlock(&c->lock);
}

static void *work(void *payload)
{
    crew *c = payload;
    for (int i; (i = c->next++) < c->n_jobs;)
        if (!c->jobs[i].done) {
            gap_record record = {.n = 0};
            run_job(c->study, &c->jobs[i], &record);
            keep(c, &record);
        }
    return NULL;
}

/* Seconds of a job on one core, as earlier jobs of its kind took them, else as here when this was
 * written. */
static double expected_seconds(const crew *c, const gap_job *job)
{
    static const double usual[] = {120, 200, 40, 240};
    double sum = 0;
    int n = 0;
    for (int i = 0; i < c->n_jobs; i++) {
        const gap_record *r = c->jobs[i].kind == job->kind && c->jobs[i].done
                                  ? gap_results_find(&c->results, c->jobs[i].name)
                                  : NULL;
        if (r != NULL) {
            sum += gap_get(r, "seconds");
            n++;
        }
    }
    return n > 0 ? sum / n : usual[job->kind];
}

static void say_plan(const crew *c)
{
    double left = 0;
    for (int i = 0; i < c->n_jobs; i++)
        left += c->jobs[i].done ? 0 : expected_seconds(c, &c->jobs[i]);
    printf("%d jobs, %d of them done; about %.0f min of one core's work left, %.0f min on %d "
           "thread%s\n",
           c->n_jobs, c->n_jobs - c->to_do, left / 60, left / 60 / c->study->threads,
           c->study->threads, c->study->threads == 1 ? "" : "s");
    fflush(stdout);
}

int gap_study_run(const gap_study *s)
{
    crew c = {.study = s, .jobs = calloc(MAX_JOBS, sizeof *c.jobs)};
    gap_setting tuned[N_GAP_ARMS];
    pthread_t threads[MAX_THREADS];
    int n_threads = 0;
    if (c.jobs == NULL || pthread_mutex_init(&c.lock, NULL) != 0)
        exit(1);
    if (s->tuned != NULL) {
        gap_results grid;
        gap_results_read(&grid, s->tuned, 0);
        int ok = gap_best_settings(s, &grid, tuned) == 0;
        gap_results_free(&grid);
        if (!ok)
            return 1;
    }
    if (s->results != NULL)
        gap_results_read(&c.results, s->results, 1);
    if (s->results != NULL && !s->plan)
        gap_results_reach(s->results);
    make_jobs(&c, s->tuned == NULL ? NULL : tuned);
    say_plan(&c);
    timespec_get(&c.start, TIME_UTC);
    if (!s->plan) {
        while (n_threads < s->threads - 1 && n_threads < MAX_THREADS &&
               pthread_create(&threads[n_threads], NULL, work, &c) == 0)
            n_threads++;
        work(&c);
        for (int i = 0; i < n_threads; i++)
            pthread_join(threads[i], NULL);
    }
    if (s->grid && !s->plan)
        gap_best_settings(s, &c.results, tuned);
    else if (!s->plan) {
        gap_report(s, &c.results, c.jobs, c.n_jobs);
        if (s->picture != NULL)
            gap_draw(s, &c.results, c.jobs, c.n_jobs);
    }
    gap_results_free(&c.results);
    pthread_mutex_destroy(&c.lock);
    free(c.jobs);
    return 0;
}
