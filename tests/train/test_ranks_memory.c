/* Several ranks, one of which runs out of memory: all fail, and the same call goes on afterwards as
 * if nothing had been. */
#include "ranks_test.h"

enum { STEPS = 4 };

/* Allocation `at` of the odd rank's steps fails (0: none); then the steps that are left. */
static void steps_without_memory(void *payload, const prefopt_collective *c, setting *s,
                                 prefopt_policy *policy)
{
    job *j = payload;
    int64_t rank = rank_of(c), step;
    prefopt_trainer *t = NULL;
    prefopt_train_options o = options_of(c);
    OK(objectives[j->objective].make(&t, s, policy, &o));
    if (odd(j, c)) {
        j->allocator->calls = 0;
        j->allocator->fail_at = j->at;
    }
    note(j, rank, prefopt_trainer_run(t, STEPS, NULL));
    if (odd(j, c))
        j->allocator->fail_at = 0;
    OK(prefopt_trainer_step(t, &step));
    OK(prefopt_trainer_run(t, STEPS - step, NULL));
    prefopt_parameters p = parameters_of(policy);
    ck_assert_int_le(p.n, MOST);
    memcpy(j->value[rank], p.value, (size_t)p.n * sizeof(double));
    prefopt_trainer_destroy(t);
}

static job run_job(size_t objective, int64_t at)
{
    counting_allocator allocator = {0};
    job j = {.work = steps_without_memory,
             .objective = objective,
             .rank = 1,
             .at = at,
             .allocator = &allocator};
    run_ranks(2, rank_job, &j, 0);
    same_bits(&j, 2);
    ck_assert_int_eq(allocator.live, 0);
    j.allocator = NULL;
    return j;
}

START_TEST(all_go_on_after_one_had_no_memory)
{
    size_t objective = (size_t)_i;
    if (!is_shared(objective))
        return;
    job never = run_job(objective, 0);
    all_have(&never, 2, PREFOPT_OK, "");
    int64_t failures = 0;
    for (int32_t status = PREFOPT_ERR_MEMORY; status != PREFOPT_OK;) {
        job once = run_job(objective, failures + 1);
        status = once.status[0];
        all_have(&once, 2, status == PREFOPT_OK ? PREFOPT_OK : PREFOPT_ERR_MEMORY, "rank 1 of 2");
        ck_assert_mem_eq(once.value[0], never.value[0], sizeof once.value[0]);
        failures += status != PREFOPT_OK;
    }
    make_fn *make = objectives[objective].make;
    if (make == make_policy_gradient || make == make_ppo || make == make_online ||
        make == make_rounds)
        ck_assert_int_gt(failures, 50);
}
END_TEST

/* ---- steps of rounds without a pair, which move nothing and are counted */

static _Thread_local struct {
    int32_t (*own)(void *payload, prefopt_parameters *out);
    int64_t calls, fail_at;
} asked;

static int32_t ask_parameters(void *payload, prefopt_parameters *out)
{
    if (++asked.calls == asked.fail_at)
        return pf_fail(PREFOPT_ERR_MEMORY, "made to fail");
    return asked.own(payload, out);
}

/* Question `at` of the odd rank's steps where the parameters lie fails. */
static void steps_without_pairs(void *payload, const prefopt_collective *c, setting *s,
                                prefopt_policy *policy)
{
    job *j = payload;
    prefopt_trainer *t = NULL;
    prefopt_train_options o = options_of(c);
    o.batch = 2;
    prefopt_reward *same = tabular_reward(&s->w, s->w.all);
    asked.own = policy->callbacks.parameters;
    asked.fail_at = asked.calls = 0;
    policy->callbacks.parameters = ask_parameters;
    OK(prefopt_trainer_create_online_dpo(&t, policy, s->reference, same, s->w.prompts, NULL, NULL,
                                         NULL, NULL, &o));
    OK(prefopt_trainer_run(t, 1, NULL));
    asked.calls = 0;
    asked.fail_at = odd(j, c) ? j->at : 0;
    note(j, c->rank, prefopt_trainer_run(t, STEPS, NULL));
    asked.fail_at = 0;
    OK(prefopt_trainer_step(t, &j->step[c->rank]));
    OK(prefopt_trainer_run(t, 1, NULL));
    prefopt_trainer_destroy(t);
    prefopt_reward_destroy(same);
}

START_TEST(no_rank_counts_a_step_that_another_did_not_take)
{
    int64_t failures = 0;
    for (int32_t status = PREFOPT_ERR_MEMORY; status != PREFOPT_OK;) {
        job j = {.work = steps_without_pairs, .rank = 1, .at = failures + 1};
        run_ranks(2, rank_job, &j, 0);
        status = j.status[0];
        all_have(&j, 2, status == PREFOPT_OK ? PREFOPT_OK : PREFOPT_ERR_MEMORY, "rank 1 of 2");
        ck_assert_int_eq(j.step[0], j.step[1]);
        failures += status != PREFOPT_OK;
    }
    ck_assert_int_ge(failures, STEPS);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ranks_memory");
    TCase *tcase = tcase_create("ranks_memory");
    tcase_set_timeout(tcase, 0);
    tcase_add_loop_test(tcase, all_go_on_after_one_had_no_memory, 0, N_OBJECTIVES);
    tcase_add_test(tcase, no_rank_counts_a_step_that_another_did_not_take);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
