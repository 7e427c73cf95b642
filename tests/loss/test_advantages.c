/* Advantages: each baseline, the KL in the reward, completions the reference never gives. */
#include "pf_test.h"

static prefopt_pg_options options_with(int32_t baseline, double beta)
{
    prefopt_pg_options o;
    OK(prefopt_pg_options_init(&o, sizeof o));
    o.baseline = baseline;
    o.beta = beta;
    return o;
}

static prefopt_group_scores groups(int64_t n_groups, int64_t group_size, const double *reward)
{
    return (prefopt_group_scores){.struct_size = sizeof(prefopt_group_scores),
                                  .n_groups = n_groups,
                                  .group_size = group_size,
                                  .reward = reward};
}

START_TEST(each_baseline)
{
    double reward[6] = {1, 2, 6, 0, 0, -3}, a[6];
    prefopt_group_scores in = groups(2, 3, reward);
    const double want[4][6] = {
        {1, 2, 6, 0, 0, -3},
        {-2, -1, 3, 1, 1, -2},
        {1 - 4, 2 - 3.5, 6 - 1.5, 1.5, 1.5, -3},
        {-2 / sqrt(7), -1 / sqrt(7), 3 / sqrt(7), 1 / sqrt(3), 1 / sqrt(3), -2 / sqrt(3)}};
    for (int32_t b = PREFOPT_BASELINE_NONE; b <= PREFOPT_BASELINE_GROUP_NORM; b++) {
        prefopt_pg_options o = options_with(b, 0);
        OK(prefopt_advantages(&o, &in, a));
        for (int i = 0; i < 6; i++)
            CLOSE(a[i], want[b][i], 1e-15);
    }
    OK(prefopt_advantages(NULL, &in, a)); /* the default is leave-one-out */
    for (int i = 0; i < 6; i++)
        CLOSE(a[i], want[PREFOPT_BASELINE_LEAVE_ONE_OUT][i], 1e-15);
}
END_TEST

START_TEST(no_spread_is_exactly_nothing)
{
    double reward[7], a[7];
    for (int i = 0; i < 7; i++)
        reward[i] = 0.1;
    prefopt_group_scores in = groups(1, 7, reward);
    for (int32_t b = PREFOPT_BASELINE_MEAN; b <= PREFOPT_BASELINE_GROUP_NORM; b++) {
        prefopt_pg_options o = options_with(b, 0);
        OK(prefopt_advantages(&o, &in, a));
        for (int i = 0; i < 7; i++)
            ck_assert(a[i] == 0);
    }
    /* A group of one: its own mean. */
    in = groups(7, 1, reward);
    for (int32_t b = PREFOPT_BASELINE_MEAN; b <= PREFOPT_BASELINE_GROUP_NORM; b++) {
        prefopt_pg_options o = options_with(b, 0);
        if (b == PREFOPT_BASELINE_LEAVE_ONE_OUT) {
            FAILS(PREFOPT_ERR_ARGUMENT, "group_size is 1", prefopt_advantages(&o, &in, a));
            continue;
        }
        OK(prefopt_advantages(&o, &in, a));
        for (int i = 0; i < 7; i++)
            ck_assert(a[i] == 0);
    }
}
END_TEST

START_TEST(offset_and_scale)
{
    double reward[4] = {1, 2, 4, 9}, moved[4], a[4], b[4];
    for (int i = 0; i < 4; i++)
        moved[i] = 0x1p40 + reward[i]; /* exact */
    prefopt_group_scores in = groups(1, 4, reward), far = groups(1, 4, moved);
    for (int32_t base = PREFOPT_BASELINE_MEAN; base <= PREFOPT_BASELINE_GROUP_NORM; base++) {
        prefopt_pg_options o = options_with(base, 0);
        OK(prefopt_advantages(&o, &in, a));
        OK(prefopt_advantages(&o, &far, b));
        for (int i = 0; i < 4; i++)
            ck_assert(a[i] == b[i]);
    }
    /* The normalised ones forget the scale, also where squares would overflow or vanish. */
    const double scales[2] = {0x1p900, 0x1p-900};
    prefopt_pg_options o = options_with(PREFOPT_BASELINE_GROUP_NORM, 0);
    OK(prefopt_advantages(&o, &in, a));
    for (int s = 0; s < 2; s++) {
        for (int i = 0; i < 4; i++)
            moved[i] = reward[i] * scales[s];
        OK(prefopt_advantages(&o, &far, b));
        for (int i = 0; i < 4; i++)
            CLOSE(a[i], b[i], 1e-15);
    }
}
END_TEST

START_TEST(kl_in_the_reward)
{
    double reward[4] = {1, 2, 3, 4}, logp[4] = {-1, -2, -3, -4}, ref[4] = {-2, -2, -1, -8}, a[4];
    prefopt_group_scores in = groups(2, 2, reward);
    in.logp = logp;
    in.ref_logp = ref;
    prefopt_pg_options o = options_with(PREFOPT_BASELINE_NONE, 0.5);
    OK(prefopt_advantages(&o, &in, a));
    for (int i = 0; i < 4; i++)
        CLOSE(a[i], reward[i] - 0.5 * (logp[i] - ref[i]), 1e-15);
    o.kl_placement = PREFOPT_KL_IN_LOSS;
    o.kl_estimator = PREFOPT_KL_K3;
    OK(prefopt_advantages(&o, &in, a));
    for (int i = 0; i < 4; i++)
        ck_assert(a[i] == reward[i]);
    /* With beta 0 the reference is not looked at. */
    o = options_with(PREFOPT_BASELINE_NONE, 0);
    in.logp = in.ref_logp = NULL;
    OK(prefopt_advantages(&o, &in, a));
    for (int i = 0; i < 4; i++)
        ck_assert(a[i] == reward[i]);
}
END_TEST

START_TEST(what_the_reference_never_gives)
{
    double reward[4] = {1, 2, 6, 5}, logp[4] = {-1, -1, -1, -INFINITY};
    double ref[4] = {-1, -1, -INFINITY, -1}, a[4];
    prefopt_group_scores in = groups(1, 4, reward);
    in.logp = logp;
    in.ref_logp = ref;
    /* R = 1, 2, -INFINITY, 5: the third counts for no baseline; the policy never gives the fourth.
     */
    const double want[4][4] = {{1, 2, -INFINITY, 5},
                               {1 - 8.0 / 3, 2 - 8.0 / 3, -INFINITY, 5 - 8.0 / 3},
                               {1 - 3.5, 2 - 3, -INFINITY, 5 - 1.5},
                               {(1 - 8.0 / 3) / sqrt(13.0 / 3), (2 - 8.0 / 3) / sqrt(13.0 / 3),
                                -INFINITY, (5 - 8.0 / 3) / sqrt(13.0 / 3)}};
    for (int32_t b = 0; b < 4; b++) {
        prefopt_pg_options o = options_with(b, 0.5);
        OK(prefopt_advantages(&o, &in, a));
        for (int i = 0; i < 4; i++)
            CLOSE(a[i], want[b][i], 1e-14);
    }
    for (int i = 0; i < 4; i++)
        ref[i] = -INFINITY;
    ref[0] = -1;
    logp[3] = -2;
    for (int32_t b = 0; b < 4; b++) { /* one finite, then none */
        prefopt_pg_options o = options_with(b, 0.5);
        OK(prefopt_advantages(&o, &in, a));
        ck_assert(a[0] ==
                  (b == PREFOPT_BASELINE_NONE || b == PREFOPT_BASELINE_LEAVE_ONE_OUT ? 1 : 0));
        for (int i = 1; i < 4; i++)
            ck_assert(a[i] == -INFINITY);
    }
}
END_TEST

START_TEST(arguments)
{
    double reward[4] = {1, 2, 3, 4}, x[4] = {-1, -1, -1, -1}, bad[4] = {-1, -1, NAN, -1};
    double a[4] = {7, 7, 7, 7};
    prefopt_group_scores in = groups(2, 2, reward);
    prefopt_pg_options o = options_with(PREFOPT_BASELINE_MEAN, 0.5);
    FAILS(PREFOPT_ERR_ARGUMENT, "in is NULL", prefopt_advantages(&o, NULL, a));
    FAILS(PREFOPT_ERR_ARGUMENT, "logp is NULL", prefopt_advantages(&o, &in, a));
    in.logp = x;
    FAILS(PREFOPT_ERR_ARGUMENT, "ref_logp is NULL", prefopt_advantages(&o, &in, a));
    in.ref_logp = x;
    FAILS(PREFOPT_ERR_ARGUMENT, "advantage is NULL", prefopt_advantages(&o, &in, NULL));
    in.reward = NULL;
    FAILS(PREFOPT_ERR_ARGUMENT, "reward is NULL", prefopt_advantages(&o, &in, a));
    in.reward = bad;
    FAILS(PREFOPT_ERR_NUMERIC, "reward[2]", prefopt_advantages(&o, &in, a));
    double infinite[4] = {1, -INFINITY, 1, 1}, large[4] = {1, 1, 1, 2e280};
    in.reward = infinite;
    FAILS(PREFOPT_ERR_NUMERIC, "reward[1]", prefopt_advantages(&o, &in, a));
    in.reward = large;
    FAILS(PREFOPT_ERR_NUMERIC, "reward[3]", prefopt_advantages(&o, &in, a));
    in.reward = reward;
    in.logp = bad;
    FAILS(PREFOPT_ERR_NUMERIC, "logp[2]", prefopt_advantages(&o, &in, a));
    in.logp = x;
    in.ref_logp = bad;
    FAILS(PREFOPT_ERR_NUMERIC, "ref_logp[2]", prefopt_advantages(&o, &in, a));
    in.ref_logp = x;
    in.n_groups = -1;
    FAILS(PREFOPT_ERR_ARGUMENT, "n_groups is -1", prefopt_advantages(&o, &in, a));
    in.n_groups = INT64_MAX;
    FAILS(PREFOPT_ERR_ARGUMENT, "overflows", prefopt_advantages(&o, &in, a));
    in.n_groups = 2;
    in.group_size = -2;
    FAILS(PREFOPT_ERR_ARGUMENT, "group_size is -2", prefopt_advantages(&o, &in, a));
    in.group_size = 2;
    in.struct_size = 8;
    FAILS(PREFOPT_ERR_VERSION, "prefopt_group_scores", prefopt_advantages(&o, &in, a));
    in.struct_size = sizeof in;
    in.reserved = 1;
    FAILS(PREFOPT_ERR_ARGUMENT, "reserved", prefopt_advantages(&o, &in, a));
    in.reserved = 0;
    o.baseline = 4;
    FAILS(PREFOPT_ERR_ARGUMENT, "baseline is 4", prefopt_advantages(&o, &in, a));
    for (int i = 0; i < 4; i++)
        ck_assert(a[i] == 7);
    prefopt_group_scores none = groups(0, 0, NULL);
    OK(prefopt_advantages(NULL, &none, NULL));
    none = groups(0, 4, NULL);
    OK(prefopt_advantages(NULL, &none, NULL));
    none = groups(3, 0, NULL);
    OK(prefopt_advantages(NULL, &none, NULL));
}
END_TEST

TEST_MAIN("advantages", each_baseline, no_spread_is_exactly_nothing, offset_and_scale,
          kl_in_the_reward, what_the_reference_never_gives, arguments)
