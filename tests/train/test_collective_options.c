/* A collective in a trainer's options: what is refused, what is never called, memory that ends. */
#include "every_objective.h"

static int32_t never(void *payload, double *values, int64_t n)
{
    (void)payload, (void)values, (void)n;
    ck_abort_msg("called");
    return 0;
}
static int32_t never_f32(void *payload, float *values, int64_t n)
{
    (void)values;
    return never(payload, NULL, n);
}
static int32_t never_bytes(void *payload, void *bytes, int64_t n, int64_t root)
{
    (void)bytes, (void)root;
    return never(payload, NULL, n);
}

static prefopt_collective unused(int64_t size)
{
    return (prefopt_collective){.struct_size = sizeof(prefopt_collective),
                                .size = size,
                                .sum_f32 = never_f32,
                                .sum_f64 = never,
                                .broadcast = never_bytes};
}

/* One rank of several, of which the others add nothing. */
static int32_t as_it_is(void *payload, double *values, int64_t n)
{
    (void)payload, (void)values, (void)n;
    return 0;
}
static int32_t as_it_is_bytes(void *payload, void *bytes, int64_t n, int64_t root)
{
    (void)payload, (void)bytes, (void)n, (void)root;
    return 0;
}

static prefopt_collective lonely(int64_t size)
{
    prefopt_collective c = unused(size);
    c.sum_f64 = as_it_is;
    c.broadcast = as_it_is_bytes;
    return c;
}

START_TEST(options_are_checked)
{
    prefopt_context *context = test_context(1);
    setting s = setting_new(context);
    prefopt_trainer *t = NULL;
    prefopt_train_options o = train_defaults();
    prefopt_collective c = unused(2);
    o.collective = &c;
#define REFUSED(change, code, text)                                                                \
    do {                                                                                           \
        c = unused(2);                                                                             \
        change;                                                                                    \
        FAILS(code, text, make_dpo(&t, &s, s.w.policy, &o));                                       \
        ck_assert_ptr_null(t);                                                                     \
    } while (0)
    REFUSED(c.size = 0, PREFOPT_ERR_ARGUMENT, "collective: size is 0");
    REFUSED(c.rank = 2, PREFOPT_ERR_ARGUMENT, "collective: rank is 2, expected 0 to 1");
    REFUSED(c.rank = -1, PREFOPT_ERR_ARGUMENT, "rank is -1");
    REFUSED(c.reserved = 1, PREFOPT_ERR_ARGUMENT, "reserved is 1");
    REFUSED(c.sum_f32 = NULL, PREFOPT_ERR_ARGUMENT, "sum_f32 is NULL");
    REFUSED(c.sum_f64 = NULL, PREFOPT_ERR_ARGUMENT, "sum_f64 is NULL");
    REFUSED(c.broadcast = NULL, PREFOPT_ERR_ARGUMENT, "broadcast is NULL");
    REFUSED(c.struct_size = 8, PREFOPT_ERR_VERSION, "prefopt_collective: struct_size is 8");
    c = lonely(2);
    for (size_t i = 0; i < N_OBJECTIVES; i++)
        if (!is_shared(i))
            FAILS(PREFOPT_ERR_UNSUPPORTED, "collective has 2 ranks",
                  objectives[i].make(&t, &s, s.w.policy, &o));
    /* One rank: nothing is called. Loss is each rank's own; a fit is not shared. */
    c = unused(2);
    OK(make_mle(&t, &s, s.w.policy, &o));
    double loss;
    OK(prefopt_trainer_loss(t, &loss));
    FAILS(PREFOPT_ERR_UNSUPPORTED, "collective has 2 ranks", prefopt_trainer_fit(t, NULL));
    prefopt_trainer_destroy(t);
    c = unused(1);
    OK(make_dpo(&t, &s, s.w.policy, &o));
    OK(prefopt_trainer_run(t, 2, NULL));
    prefopt_trainer_destroy(t);
    setting_free(&s);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(create_without_memory)
{
    counting_allocator allocator = {0};
    prefopt_context *context = counting_context(&allocator);
    setting s = setting_new(context);
    prefopt_train_options o = train_defaults();
    prefopt_collective c = lonely(3);
    o.collective = &c;
    o.batch = 4;
    int64_t live = allocator.live, failures = 0;
    for (int32_t status = PREFOPT_ERR_MEMORY; status != PREFOPT_OK; failures++) {
        prefopt_trainer *t = NULL;
        allocator.calls = 0;
        allocator.fail_at = failures + 1;
        status = make_dpo(&t, &s, s.w.policy, &o);
        allocator.fail_at = 0;
        ck_assert(status == PREFOPT_OK || status == PREFOPT_ERR_MEMORY);
        ck_assert((t != NULL) == (status == PREFOPT_OK));
        prefopt_trainer_destroy(t);
        ck_assert_int_eq(allocator.live, live);
    }
    ck_assert_int_gt(failures, 20);
    setting_free(&s);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("collective_options", options_are_checked, create_without_memory)
