/* Several ranks: the step of one process with the whole batch; the same bits on all ranks; a
 * failure or a stop on one is one on all; a collective that fails. */
#define _GNU_SOURCE
#include "every_objective.h"
#include "pf_config.h"
#include "ranks_in_threads.h"
#include "saved_test.h"
#include "train/pf_train.h"

enum { MOST = 64, STEPS = 3 };

/* ---- a model that fails, or stops, or makes a gradient that is no number, on one rank */

enum { IN_LOGPROBS, IN_BACKWARD, IN_GRADIENT, IN_UPDATED, IN_NEXT };

static _Thread_local struct {
    prefopt_policy_callbacks own;
    prefopt_policy *policy;
    int32_t place, status;
    int64_t calls, at; /* the call that fails, from 1; bad gradients stay bad */
} bad;

static int32_t bad_here(int32_t place)
{
    if (bad.place != place || ++bad.calls < bad.at || (bad.calls > bad.at && place != IN_GRADIENT))
        return PREFOPT_OK;
    return bad.status < 0 ? pf_fail(bad.status, "made to fail") : bad.status;
}

static int32_t bad_logprobs(void *payload, const prefopt_sequences *in, double *sequence_logp,
                            double *token_logp)
{
    int32_t status = bad_here(IN_LOGPROBS);
    return status != 0 ? status : bad.own.logprobs(payload, in, sequence_logp, token_logp);
}

static int32_t bad_backward(void *payload, const prefopt_sequences *in, const double *grad)
{
    int32_t status = bad_here(IN_BACKWARD);
    if (status != 0)
        return status;
    status = bad.own.backward(payload, in, grad);
    if (bad_here(IN_GRADIENT) != 0)
        ((double *)parameters_of(bad.policy).grad)[1] = NAN;
    return status;
}

static int32_t bad_next(void *payload, const prefopt_sequences *in, double *next_logp)
{
    int32_t status = bad_here(IN_NEXT);
    return status != 0 ? status : bad.own.next_logprobs(payload, in, next_logp);
}

static int32_t bad_updated(void *payload)
{
    int32_t status = bad_here(IN_UPDATED);
    return status != 0 || bad.own.updated == NULL ? status : bad.own.updated(payload);
}

static void make_bad(prefopt_policy *policy, int32_t place, int32_t status, int64_t at)
{
    bad.own = policy->callbacks;
    bad.policy = policy;
    bad.place = place;
    bad.status = status;
    bad.calls = 0;
    bad.at = at;
    policy->callbacks.logprobs = bad_logprobs;
    policy->callbacks.backward = bad_backward;
    policy->callbacks.updated = bad_updated;
    policy->callbacks.next_logprobs = bad_next;
}

/* Keeps three sequences, so that a rank's part is evaluated in parts. */
static int64_t keeps_three(void *payload, const prefopt_sequences *in)
{
    (void)payload;
    return in->n < 3 ? in->n : 3;
}
static const pf_policy_extras keeps_three_extras = {.keeps = keeps_three};

/* ---- one run on any number of ranks */

typedef struct {
    /* what to do */
    size_t objective;
    int64_t batch;
    bool in_parts;
    int64_t bad_rank, bad_at, fail_at; /* bad_rank < 0: none */
    int32_t bad_place, bad_status;
    int64_t stop_rank, stop_at; /* whose progress callback stops at that step; 0: none */
    int64_t odd_rank;           /* asks for another thing: see `odd` */
    int32_t odd;                /* 0: nothing; 1 n_steps, 2 seed, 3 ridge, 4 rows, 5 steps taken,
                                  6 beta, 7 a negative n_steps */
    bool twice;                 /* after a failure the run goes on to STEPS */
    /* what came out, by rank */
    int32_t status[MAX_RANKS];
    char text[MAX_RANKS][1024];
    double value[MAX_RANKS][MOST];
    int64_t n_values, step[MAX_RANKS];
    prefopt_progress last[MAX_RANKS];
} job;

static int32_t stop_at(void *payload, const prefopt_progress *progress)
{
    return progress->step == *(const int64_t *)payload;
}

static void options_of(const job *j, const prefopt_collective *c, prefopt_train_options *o)
{
    *o = train_defaults();
    o->optimiser = PREFOPT_SGD;
    o->momentum = 0.5;
    o->learning_rate = 0.5;
    o->batch = j->batch;
    o->ridge = 0.1;
    o->collective = c;
    bool odd = c != NULL && c->rank == j->odd_rank;
    o->seed = odd && j->odd == 2;
    if (odd && j->odd == 3)
        o->ridge = 0.2;
    if (c != NULL && c->rank == j->stop_rank && j->stop_at > 0) {
        o->progress = stop_at;
        o->progress_payload = (void *)&j->stop_at;
    }
}

static void run_steps(job *j, int64_t rank, bool odd, prefopt_trainer *trainer)
{
    prefopt_progress last = {.struct_size = sizeof last};
    if (odd && j->odd == 5)
        trainer->step = 1;
    int64_t n = odd && j->odd == 1 ? STEPS + 1 : odd && j->odd == 7 ? -1 : STEPS;
    j->status[rank] = prefopt_trainer_run(trainer, n, &last);
    snprintf(j->text[rank], sizeof j->text[rank], "%s", prefopt_last_error());
    OK(prefopt_trainer_step(trainer, &j->step[rank]));
    if (j->twice)
        OK(prefopt_trainer_run(trainer, STEPS - j->step[rank], &last));
    j->last[rank] = last;
}

static void rank_job(void *payload, const prefopt_collective *c)
{
    job *j = payload;
    int64_t rank = c != NULL ? c->rank : 0;
    prefopt_context *context = test_context(1);
    setting s = setting_new(context);
    prefopt_train_options o;
    options_of(j, c, &o);
    prefopt_policy *policy = tabular_policy(&s.w);
    randomise(policy, 8 + (uint64_t)rank, 0.5); /* rank 0's are taken */
    if (c != NULL && rank == j->bad_rank)
        make_bad(policy, j->bad_place, j->bad_status, j->bad_at);
    if (j->in_parts)
        policy->extras = &keeps_three_extras;
    bool odd = c != NULL && rank == j->odd_rank && j->odd != 0;
    if (odd && j->odd == 4)
        add_pair(&s.w, s.pairs, 0, 0, 1, 1, 1, 0);
    prefopt_trainer *trainer = NULL;
    prefopt_dpo_options dpo = dpo_of(PREFOPT_DPO_SIGMOID);
    dpo.beta = 0.2;
    j->status[rank] = odd && j->odd == 6 ? prefopt_trainer_create_dpo(&trainer, policy, s.reference,
                                                                      s.pairs, &dpo, &o)
                                         : objectives[j->objective].make(&trainer, &s, policy, &o);
    if (j->status[rank] == PREFOPT_OK)
        run_steps(j, rank, odd, trainer);
    else
        snprintf(j->text[rank], sizeof j->text[rank], "%s", prefopt_last_error());
    prefopt_parameters p = parameters_of(policy);
    ck_assert_int_lt(p.n, MOST);
    memcpy(j->value[rank], p.value, (size_t)p.n * sizeof(double));
    j->value[rank][p.n] = trainer != NULL ? trainer->extra : 0;
    if (rank == 0)
        j->n_values = p.n + 1;
    prefopt_trainer_destroy(trainer);
    prefopt_policy_destroy(policy);
    setting_free(&s);
    prefopt_context_destroy(context);
}

static void same_bits(const job *j, int64_t ranks)
{
    for (int64_t r = 1; r < ranks; r++)
        ck_assert_mem_eq(j->value[r], j->value[0], (size_t)j->n_values * sizeof(double));
}

static void same_number(double a, double b, const char *field, size_t objective)
{
    ck_assert_msg(isnan(a) == isnan(b) && (isnan(a) || close_to(a, b, 1e-12)),
                  "%s: %s is %.17g, on several ranks %.17g", objectives[objective].name, field, a,
                  b);
}

static void same_run(const job *one, const job *several, int64_t rank)
{
    const prefopt_progress *a = &one->last[0], *b = &several->last[rank];
    for (int64_t k = 0; k < one->n_values; k++)
        same_number(one->value[0][k], several->value[rank][k], "a parameter", one->objective);
    const double pairs[][2] = {{a->loss, b->loss},
                               {a->accuracy, b->accuracy},
                               {a->margin, b->margin},
                               {a->kl, b->kl},
                               {a->reward, b->reward},
                               {a->grad_norm, b->grad_norm},
                               {a->chosen_score, b->chosen_score},
                               {a->rejected_score, b->rejected_score},
                               {a->chosen_logp, b->chosen_logp},
                               {a->rejected_logp, b->rejected_logp},
                               {(double)a->tokens, (double)b->tokens},
                               {(double)a->step, (double)b->step}};
    static const char *const names[] = {
        "loss",        "accuracy",      "margin",       "kl",
        "reward",      "grad_norm",     "chosen_score", "rejected_score",
        "chosen_logp", "rejected_logp", "tokens",       "step"};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        same_number(pairs[i][0], pairs[i][1], names[i], one->objective);
}

static job job_of(size_t objective, int64_t batch)
{
    return (job){.objective = objective, .batch = batch, .bad_rank = -1};
}

/* Batches of 4 rows and of all; 5 ranks leave one without rows. */
START_TEST(ranks_equal_one_process)
{
    static const int64_t sizes[] = {1, 2, 5};
    size_t i = (size_t)_i;
    if (!is_shared(i))
        return;
    for (int64_t batch = 0; batch <= 4; batch += 4) {
        job one = job_of(i, batch);
        rank_job(&one, NULL);
        ck_assert_int_eq(one.status[0], PREFOPT_OK);
        for (size_t k = 0; k < 2 * sizeof sizes / sizeof *sizes; k++) {
            int64_t size = sizes[k / 2];
            job several = job_of(i, batch), again;
            several.in_parts = k % 2 == 1;
            again = several;
            int64_t calls = run_ranks(size, rank_job, &several, 0);
            ck_assert_int_eq(calls > 0, size > 1);
            run_ranks(size, rank_job, &again, 0);
            for (int64_t r = 0; r < size; r++) {
                ck_assert_msg(several.status[r] == PREFOPT_OK, "%s", several.text[r]);
                same_run(&one, &several, r);
            }
            same_bits(&several, size);
            ck_assert_mem_eq(several.value, again.value, sizeof again.value);
        }
    }
}
END_TEST

/* ---- failures and stops */

static void all_fail(const job *j, int64_t size, int32_t status, const char *text)
{
    for (int64_t r = 0; r < size; r++) {
        ck_assert_msg(j->status[r] == status, "rank %d: %s, expected %s: %s", (int)r,
                      prefopt_status_name(j->status[r]), prefopt_status_name(status), j->text[r]);
        if (status < 0)
            ck_assert_msg(strstr(j->text[r], text) != NULL, "rank %d: \"%s\" without \"%s\"",
                          (int)r, j->text[r], text);
    }
}

/* In step 2 rank 1 of 3 fails; nobody takes the step, and what is done then is as if it had not
 * been. */
START_TEST(one_fails_all_fail)
{
    static const struct {
        int32_t place, status, expected;
        const char *text;
    } cases[] = {
        {IN_LOGPROBS, PREFOPT_ERR_MEMORY, PREFOPT_ERR_MEMORY,
         "dpo: step 2 of 3 (2 since the trainer was made): rank 1 of 3: made to fail"},
        {IN_BACKWARD, PREFOPT_ERR_CALLBACK, PREFOPT_ERR_CALLBACK, "rank 1 of 3: made to fail"},
        {IN_LOGPROBS, PREFOPT_STOPPED, PREFOPT_STOPPED, ""},
        {IN_BACKWARD, PREFOPT_STOPPED, PREFOPT_STOPPED, ""},
        {IN_GRADIENT, PREFOPT_ERR_NUMERIC, PREFOPT_ERR_NUMERIC, "rank 1 of 3: row "},
    };
    job whole = job_of(0, 0);
    run_ranks(3, rank_job, &whole, 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        job j = job_of(0, 0);
        j.bad_rank = 1;
        j.bad_place = cases[i].place;
        j.bad_status = cases[i].status;
        j.bad_at = 2;
        j.twice = cases[i].place != IN_GRADIENT;
        run_ranks(3, rank_job, &j, 0);
        all_fail(&j, 3, cases[i].expected, cases[i].text);
        same_bits(&j, 3);
        for (int64_t r = 0; r < 3; r++)
            ck_assert_int_eq(j.step[r], 1);
        if (j.twice)
            ck_assert_mem_eq(j.value, whole.value, sizeof whole.value);
    }
}
END_TEST

static size_t index_of(make_fn *make)
{
    size_t i = 0;
    while (objectives[i].make != make)
        i++;
    return i;
}

/* While the samples are drawn: in the second round. */
START_TEST(one_fails_to_sample)
{
    job whole = job_of(index_of(make_online), 2);
    run_ranks(3, rank_job, &whole, 0);
    for (int k = 0; k < 2; k++) {
        job j = whole;
        j.bad_rank = 1;
        j.bad_place = IN_NEXT;
        j.bad_status = k == 0 ? PREFOPT_ERR_NUMERIC : PREFOPT_STOPPED;
        j.bad_at = 3; /* two tokens a completion */
        j.twice = true;
        run_ranks(3, rank_job, &j, 0);
        all_fail(&j, 3, j.bad_status,
                 "online_dpo: step 2 of 3 (2 since the trainer was made): rank 1");
        for (int64_t r = 0; r < 3; r++)
            ck_assert_int_eq(j.step[r], 1);
        ck_assert_mem_eq(j.value, whole.value, sizeof whole.value);
    }
}
END_TEST

START_TEST(bad_gradient_leaves_the_parameters)
{
    job j = job_of(0, 0), before = job_of(0, 0);
    before.stop_at = 1;
    run_ranks(2, rank_job, &before, 0);
    j.bad_rank = 1;
    j.bad_place = IN_GRADIENT;
    j.bad_status = PREFOPT_ERR_NUMERIC;
    j.bad_at = 2;
    run_ranks(2, rank_job, &j, 0);
    all_fail(&j, 2, PREFOPT_ERR_NUMERIC, ": the norm of its gradient is nan");
    ck_assert_mem_eq(j.value[1], before.value[1], sizeof j.value[1]);
}
END_TEST

START_TEST(failure_after_the_step_reaches_all)
{
    job j = job_of(0, 0);
    j.bad_rank = 2;
    j.bad_place = IN_UPDATED;
    j.bad_status = PREFOPT_ERR_CALLBACK;
    j.bad_at = 3; /* the second is that of rank 0's parameters */
    run_ranks(3, rank_job, &j, 0);
    all_fail(&j, 3, PREFOPT_ERR_CALLBACK, "rank 2 of 3: made to fail");
}
END_TEST

START_TEST(one_stops_all_stop)
{
    for (int64_t at = 1; at <= STEPS; at++)
        for (int64_t rank = 0; rank < 2; rank++) {
            job j = job_of(1, 4);
            j.stop_rank = rank;
            j.stop_at = at;
            run_ranks(2, rank_job, &j, 0);
            all_fail(&j, 2, PREFOPT_STOPPED, "");
            same_bits(&j, 2);
            for (int64_t r = 0; r < 2; r++) {
                ck_assert_int_eq(j.step[r], at);
                ck_assert_int_eq(j.last[r].step, at);
            }
        }
}
END_TEST

/* Whichever call of the collective fails: an error that names it on every rank, and no rank ahead
 * of the others. */
START_TEST(collective_fails)
{
    job whole = job_of(_i == 0 ? 0 : index_of(make_rounds), 4);
    int64_t calls = run_ranks(2, rank_job, &whole, 0);
    ck_assert_int_gt(calls, 3 * STEPS);
    for (int64_t at = 1; at <= calls; at++) {
        job j = job_of(whole.objective, 4);
        ck_assert_int_eq(run_ranks(2, rank_job, &j, at), at);
        all_fail(&j, 2, PREFOPT_ERR_CALLBACK, " returned 7");
        ck_assert_int_eq(j.step[0], j.step[1]);
        same_number(strstr(j.text[1], "on rank 1 of 2") != NULL, 1, "names the rank", 0);
    }
}
END_TEST

START_TEST(ranks_that_differ)
{
    static const char *const texts[] = {
        NULL,
        "rank 1 of 2: n_steps is 4, but 3 on rank 0",
        "seed is 1, but 0 on rank 0",
        PF_HAVE_JSON ? "rank 1 of 2: rank 0: train.ridge is "
                     : "rank 1 of 2: the training options are not those of rank 0",
        "rank 1 of 2: the number of rows is",
        "the number of steps taken is 1, but 0 on rank 0",
        "rank 1 of 2: rank 0: dpo.beta is ",
        "rank 1 of 2: n_steps is -1"};
    for (int32_t odd = 1; odd <= 7; odd++) {
        if (odd == 6 && !PF_HAVE_JSON)
            continue;
        job j = job_of(0, 0);
        j.odd = odd;
        j.odd_rank = 1;
        run_ranks(2, rank_job, &j, 0);
        all_fail(&j, 2, odd == 7 ? PREFOPT_ERR_ARGUMENT : PREFOPT_ERR_STATE, texts[odd]);
    }
}
END_TEST

/* ---- going on in the middle of a round */

enum { SAVED, RESTORED, REFUSED_TO, UNTOUCHED, N_TRAINERS };

static void same_policies(prefopt_policy *a, prefopt_policy *b)
{
    prefopt_parameters p = parameters_of(a), q = parameters_of(b);
    ck_assert_mem_eq(p.value, q.value, (size_t)p.n * sizeof(double));
}

/* A trainer that has a round at hand goes on from the middle of another's; one that had no memory
 * for that goes on with its own. */
static void restore_job(void *payload, const prefopt_collective *c)
{
    const job *j = payload;
    char base[PATH_ROOM];
    counting_allocator allocator = {0};
    prefopt_context *context = counting_context(&allocator);
    setting s = setting_new(context);
    prefopt_trainer *t[N_TRAINERS];
    prefopt_policy *policy[N_TRAINERS];
    prefopt_train_options o;
    options_of(j, c, &o);
    new_folder(base);
    for (int i = 0; i < N_TRAINERS; i++) {
        policy[i] = tabular_policy(&s.w);
        randomise(policy[i], i == SAVED ? 8 : 9, 0.5);
        OK(objectives[j->objective].make(&t[i], &s, policy[i], &o));
        OK(prefopt_trainer_run(t[i], i == SAVED ? 4 : 1, NULL));
    }
    OK(prefopt_trainer_save(t[SAVED], base, NULL));
    allocator.calls = 0;
    OK(prefopt_trainer_restore(t[RESTORED], base));
    int64_t calls = allocator.calls;
    ck_assert_int_gt(calls, 20);
    for (int64_t at = 1; at <= calls; at++) {
        int64_t live = allocator.live;
        allocator.calls = 0;
        allocator.fail_at = at;
        ck_assert_int_eq(prefopt_trainer_restore(t[REFUSED_TO], base), PREFOPT_ERR_MEMORY);
        allocator.fail_at = 0;
        ck_assert_int_eq(allocator.live, live);
    }
    for (int i = 0; i < N_TRAINERS; i++)
        OK(prefopt_trainer_run(t[i], 4, NULL));
    same_policies(policy[SAVED], policy[RESTORED]);
    same_policies(policy[UNTOUCHED], policy[REFUSED_TO]);
    for (int i = 0; i < N_TRAINERS; i++) {
        prefopt_trainer_destroy(t[i]);
        prefopt_policy_destroy(policy[i]);
    }
    setting_free(&s);
    prefopt_context_destroy(context);
    ck_assert_int_eq(allocator.live, 0);
    remove_all(base);
}

START_TEST(rounds_go_on)
{
    job j = job_of(index_of(_i == 0 ? make_rounds : make_ppo), 4);
    for (int64_t size = 1; size <= 2; size++)
        run_ranks(size, restore_job, &j, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("collective");
    TCase *tcase = tcase_create("collective");
    tcase_set_timeout(tcase, 0);
    tcase_add_loop_test(tcase, ranks_equal_one_process, 0, N_OBJECTIVES);
    tcase_add_test(tcase, one_fails_all_fail);
    tcase_add_test(tcase, bad_gradient_leaves_the_parameters);
    tcase_add_test(tcase, failure_after_the_step_reaches_all);
    tcase_add_test(tcase, one_stops_all_stop);
    tcase_add_test(tcase, one_fails_to_sample);
    tcase_add_loop_test(tcase, collective_fails, 0, 2);
    if (PF_HAVE_JSON)
        tcase_add_loop_test(tcase, rounds_go_on, 0, 2);
    tcase_add_test(tcase, ranks_that_differ);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
