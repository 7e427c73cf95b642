/* Held-out data that several ranks evaluate, each its part: the numbers of one process, the same
 * bits on all ranks, and a failure of one is one of all. */
#include "ranks_test.h"
#include "train/pf_evaluation.h"

static prefopt_dataset *held_out_of(const setting *s, make_fn *make)
{
    static const int64_t rows[] = {6, 1, 3, 4, 1};
    prefopt_dataset *out = NULL;
    const prefopt_dataset *from = make == make_ranked_dpo || make == make_ranked_reward
                                      ? s->rankings
                                  : make == make_mle    ? s->completions
                                  : make == make_reward ? s->ties
                                  : make == make_dpo    ? s->margined
                                                        : NULL;
    if (from == NULL)
        return random_pairs(&s->w, 77, 3);
    OK(prefopt_dataset_select(&out, from, rows, 5));
    return out;
}

static const prefopt_reference *held_out_reference(const setting *s, make_fn *make)
{
    bool none =
        make == make_mle || make == make_reward || make == make_ranked_reward || make == make_simpo;
    return none ? NULL : s->reference;
}

static bool is_evaluated(make_fn *make)
{
    return make != make_soft_rl && make != make_aot && make != make_prior &&
           make != make_policy_gradient && make != make_ppo;
}

static int32_t record(void *payload, const prefopt_progress *p)
{
    job *j = ((void **)payload)[0];
    int64_t rank = *(int64_t *)((void **)payload)[1];
    double *to = j->value[rank] + 4 * (p->step < 5 ? p->step : 5);
    to[0] = p->eval_loss;
    to[1] = p->eval_accuracy;
    to[2] = p->eval_margin;
    to[3] = (double)p->best_step;
    return 0;
}

/* Steps with evaluations every second; then back to the best. kind 1: patience 1, and a rate that
 * makes things worse. */
static void evaluated(void *payload, const prefopt_collective *c, setting *s,
                      prefopt_policy *policy)
{
    job *j = payload;
    int64_t rank = rank_of(c);
    make_fn *make = objectives[j->objective].make;
    prefopt_trainer *t = NULL;
    prefopt_train_options o = options_of(c);
    void *to[] = {j, &rank};
    o.progress = record;
    o.progress_payload = to;
    if (j->kind == 1)
        o.learning_rate = 50;
    OK(make(&t, s, policy, &o));
    prefopt_evaluation_options e;
    OK(prefopt_evaluation_options_init(&e, sizeof e));
    e.every = 2;
    e.patience = j->kind;
    prefopt_dataset *held_out = held_out_of(s, make);
    OK(prefopt_trainer_set_evaluation(t, held_out, held_out_reference(s, make), &e));
    note(j, rank, prefopt_trainer_run(t, 6, NULL));
    OK(prefopt_trainer_step(t, &j->step[rank]));
    if (j->status[rank] >= 0)
        OK(prefopt_trainer_restore_best(t));
    prefopt_parameters p = parameters_of(policy);
    ck_assert_int_le(24 + p.n, MOST);
    memcpy(j->value[rank] + 24, p.value, (size_t)p.n * sizeof(double));
    if (rank == 0)
        j->n_values = 24 + p.n;
    prefopt_dataset_destroy(held_out);
    prefopt_trainer_destroy(t);
}

static void compare_runs(const job *one, const job *several, int64_t size)
{
    all_have(several, size, one->status[0], "");
    same_bits(several, size);
    ck_assert_int_eq(one->n_values, several->n_values);
    for (int64_t r = 0; r < size; r++)
        ck_assert_int_eq(several->step[r], one->step[0]);
    for (int64_t i = 0; i < one->n_values; i++) {
        double a = one->value[0][i], b = several->value[0][i];
        ck_assert_msg(isnan(a) == isnan(b) && (isnan(a) || close_to(a, b, 1e-11)),
                      "%s: number %d is %.17g, on %d ranks %.17g", objectives[one->objective].name,
                      (int)i, a, (int)size, b);
    }
}

/* 2 ranks, and 7, which leave some without a held-out row. */
START_TEST(evaluations_are_shared)
{
    if (!is_evaluated(objectives[_i].make))
        return;
    for (int32_t kind = 0; kind <= 1; kind++) {
        job one = {.work = evaluated, .objective = (size_t)_i, .rank = -1, .kind = kind};
        rank_job(&one, NULL);
        for (int64_t size = 2; size <= 7; size += 5) {
            job several = {.work = evaluated, .objective = (size_t)_i, .rank = -1, .kind = kind};
            run_ranks(size, rank_job, &several, 0);
            compare_runs(&one, &several, size);
        }
    }
}
END_TEST

/* The policy of each rank is asked for its part of the held-out sequences alone. */
static void counts(void *payload, const prefopt_collective *c, setting *s, prefopt_policy *policy)
{
    job *j = payload;
    int64_t rank = rank_of(c);
    prefopt_trainer *t = NULL;
    prefopt_train_options o = options_of(c);
    OK(make_simpo(&t, s, policy, &o));
    OK(prefopt_trainer_set_evaluation(t, s->pairs, NULL, NULL));
    of_policy.sequences = 0;
    OK(prefopt_trainer_run(t, 0, NULL));
    j->value[rank][0] = (double)of_policy.sequences;
    prefopt_trainer_destroy(t);
}

START_TEST(each_evaluates_its_part)
{
    job one = {.work = counts, .rank = -1}, several = one;
    rank_job(&one, NULL);
    run_ranks(3, rank_job, &several, 0);
    double all = one.value[0][0], most = 0;
    for (int64_t r = 0; r < 3; r++)
        most = fmax(most, several.value[r][0]);
    ck_assert_double_ge(all, 6);
    ck_assert_double_lt(most, 0.7 * all); /* sequences of two parts are asked for twice */
}
END_TEST

/* Rank 1 fails, or stops, in the evaluation after step 2; then the run goes on. */
static void fails_there(void *payload, const prefopt_collective *c, setting *s,
                        prefopt_policy *policy)
{
    job *j = payload;
    int64_t rank = rank_of(c);
    prefopt_trainer *t = NULL;
    prefopt_train_options o = options_of(c);
    prefopt_evaluation_options e;
    OK(prefopt_evaluation_options_init(&e, sizeof e));
    e.every = 2;
    OK(make_dpo(&t, s, policy, &o));
    OK(prefopt_trainer_set_evaluation(t, s->pairs, s->reference, &e));
    OK(prefopt_trainer_run(t, 1, NULL));
    if (odd(j, c)) {
        of_policy.fail_at = of_policy.calls + 2; /* step, evaluation */
        of_policy.status = j->kind;
    }
    note(j, rank, prefopt_trainer_run(t, 3, NULL));
    OK(prefopt_trainer_step(t, &j->step[rank]));
    ck_assert_int_eq(t->evaluation->step, j->step[rank] == 2 ? 0 : 4);
    prefopt_progress last = {.struct_size = sizeof last};
    OK(prefopt_trainer_run(t, 4 - j->step[rank], &last));
    const double all[] = {last.eval_loss, last.best_eval_loss, (double)last.best_step};
    memcpy(j->value[rank], all, sizeof all);
    prefopt_parameters p = parameters_of(policy);
    memcpy(j->value[rank] + 3, p.value, (size_t)p.n * sizeof(double));
    prefopt_trainer_destroy(t);
}

START_TEST(an_evaluation_fails)
{
    static const int32_t kinds[] = {PREFOPT_ERR_MEMORY, PREFOPT_ERR_NUMERIC, PREFOPT_STOPPED};
    job whole = {.work = fails_there, .rank = -1};
    run_ranks(3, rank_job, &whole, 0);
    all_have(&whole, 3, PREFOPT_OK, "");
    for (int i = 0; i < 3; i++) {
        job j = {.work = fails_there, .rank = 1, .kind = kinds[i]};
        run_ranks(3, rank_job, &j, 0);
        all_have(&j, 3, kinds[i],
                 kinds[i] == PREFOPT_ERR_NUMERIC
                     ? "after step 1 of 3 (2 since the trainer was made): held_out: rank 1 of 3: "
                       "the model failed on"
                     : "held_out: rank 1 of 3: made to fail");
        for (int64_t r = 0; r < 3; r++)
            ck_assert_int_eq(j.step[r], 2);
        same_bits(&j, 3);
        ck_assert_mem_eq(j.value, whole.value, sizeof j.value);
    }
}
END_TEST

/* Rank 1 cannot take over the parameters of step 2, after which the others evaluate. */
static int32_t refuse_update(void *payload)
{
    (void)payload;
    return pf_fail(PREFOPT_ERR_MEMORY, "made to fail");
}

static void fails_before(void *payload, const prefopt_collective *c, setting *s,
                         prefopt_policy *policy)
{
    job *j = payload;
    int64_t rank = rank_of(c);
    prefopt_trainer *t = NULL;
    prefopt_train_options o = options_of(c);
    prefopt_evaluation_options e;
    OK(prefopt_evaluation_options_init(&e, sizeof e));
    e.every = 2;
    OK(make_dpo(&t, s, policy, &o));
    OK(prefopt_trainer_set_evaluation(t, s->pairs, s->reference, &e));
    OK(prefopt_trainer_run(t, 1, NULL));
    if (odd(j, c))
        policy->callbacks.updated = refuse_update;
    note(j, rank, prefopt_trainer_run(t, 3, NULL));
    ck_assert_int_eq(t->evaluation->step, 0);
    prefopt_trainer_destroy(t);
}

START_TEST(a_step_fails_before_an_evaluation)
{
    job j = {.work = fails_before, .rank = 1};
    run_ranks(3, rank_job, &j, 0);
    all_have(&j, 3, PREFOPT_ERR_MEMORY, "rank 1 of 3: made to fail");
}
END_TEST

/* kind: what rank 1 has of its own. */
enum { NO_EVALUATION, OTHER_ROWS, OTHER_PATIENCE, ANEW, OTHER_OPTION, OTHER_KIND };

static void differs(void *payload, const prefopt_collective *c, setting *s, prefopt_policy *policy)
{
    job *j = payload;
    int64_t rank = rank_of(c);
    prefopt_trainer *t = NULL;
    prefopt_train_options o = options_of(c);
    prefopt_evaluation_options e;
    OK(prefopt_evaluation_options_init(&e, sizeof e));
    OK(make_mle(&t, s, policy, &o));
    if (odd(j, c) && j->kind == OTHER_PATIENCE)
        e.patience = 3;
    if (odd(j, c) && j->kind == OTHER_OPTION)
        e.every = 0;
    int64_t rows[] = {0, 1, 2};
    prefopt_dataset *some;
    OK(prefopt_dataset_select(&some, s->completions, rows,
                              odd(j, c) && j->kind == OTHER_ROWS ? 2 : 3));
    bool other = odd(j, c) && j->kind == OTHER_KIND;
    int32_t status = PREFOPT_OK;
    if (!(j->kind == NO_EVALUATION && c != NULL)) {
        status = prefopt_trainer_set_evaluation(t, other ? s->pairs : some, NULL, &e);
        ck_assert_int_eq(t->evaluation != NULL, status == PREFOPT_OK);
    }
    if (status == PREFOPT_OK && j->kind == ANEW) {
        OK(prefopt_trainer_run(t, 1, NULL));
        pf_evaluation_outdate(t);
        t->evaluation->stale = odd(j, c);
    }
    if (status == PREFOPT_OK && j->kind == NO_EVALUATION && odd(j, c)) {
        /* Nobody else takes part in this. */
        prefopt_collective alone = t->ranks.calls;
        t->ranks.calls.size = 1;
        OK(prefopt_trainer_set_evaluation(t, some, NULL, &e));
        t->ranks.calls = alone;
    }
    note(j, rank, status == PREFOPT_OK ? prefopt_trainer_run(t, 1, NULL) : status);
    prefopt_dataset_destroy(some);
    prefopt_trainer_destroy(t);
}

START_TEST(evaluations_that_differ)
{
    static const struct {
        int32_t kind, status;
        const char *text;
    } cases[] = {
        {NO_EVALUATION, PREFOPT_ERR_STATE, "rank 1 of 2: the number of held-out rows is 3, but 0"},
        {OTHER_ROWS, PREFOPT_ERR_STATE, "rank 1 of 2: the number of held-out rows is 2, but 3"},
        {OTHER_PATIENCE, PREFOPT_ERR_STATE, "rank 1 of 2: patience is 3, but 0 on rank 0"},
        {ANEW, PREFOPT_ERR_STATE, "rank 1 of 2: whether it holds no more is 1, but 0"},
        {OTHER_OPTION, PREFOPT_ERR_ARGUMENT, "rank 1 of 2: every is 0"},
        {OTHER_KIND, PREFOPT_ERR_ARGUMENT, "rank 1 of 2: held_out: mle: row 0 is of kind PAIR"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        job j = {.work = differs, .rank = 1, .kind = cases[i].kind};
        run_ranks(2, rank_job, &j, 0);
        all_have(&j, 2, cases[i].status, cases[i].text);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("evaluation on ranks");
    TCase *tcase = tcase_create("evaluation on ranks");
    tcase_set_timeout(tcase, 0);
    tcase_add_loop_test(tcase, evaluations_are_shared, 0, N_OBJECTIVES);
    tcase_add_test(tcase, each_evaluates_its_part);
    tcase_add_test(tcase, an_evaluation_fails);
    tcase_add_test(tcase, a_step_fails_before_an_evaluation);
    tcase_add_test(tcase, evaluations_that_differ);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
