#include <pthread.h>

#include "base/pf_base.h"
#include "pf_test.h"

START_TEST(status_names_are_pinned)
{
    ck_assert_str_eq(prefopt_status_name(0), "PREFOPT_OK");
    ck_assert_str_eq(prefopt_status_name(1), "PREFOPT_STOPPED");
    ck_assert_str_eq(prefopt_status_name(-1), "PREFOPT_ERR_ARGUMENT");
    ck_assert_str_eq(prefopt_status_name(-2), "PREFOPT_ERR_MEMORY");
    ck_assert_str_eq(prefopt_status_name(-3), "PREFOPT_ERR_IO");
    ck_assert_str_eq(prefopt_status_name(-4), "PREFOPT_ERR_FORMAT");
    ck_assert_str_eq(prefopt_status_name(-5), "PREFOPT_ERR_NUMERIC");
    ck_assert_str_eq(prefopt_status_name(-6), "PREFOPT_ERR_UNSUPPORTED");
    ck_assert_str_eq(prefopt_status_name(-7), "PREFOPT_ERR_STATE");
    ck_assert_str_eq(prefopt_status_name(-8), "PREFOPT_ERR_VERSION");
    ck_assert_str_eq(prefopt_status_name(-9), "PREFOPT_ERR_CALLBACK");
    ck_assert_str_eq(prefopt_status_name(-10), "PREFOPT_ERR_UNBOUNDED");
    ck_assert_str_eq(prefopt_status_name(77), "PREFOPT_UNKNOWN");
    ck_assert_uint_eq(prefopt_version(), 0x000100);
    ck_assert_str_eq(prefopt_version_string(), "0.1.0");
}
END_TEST

START_TEST(context_refuses_what_it_cannot_use)
{
    prefopt_context *context = (prefopt_context *)&context;
    prefopt_context_options o;
    FAILS(PREFOPT_ERR_ARGUMENT, "out is NULL", prefopt_context_create(NULL, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_context_options_init(NULL, sizeof o));
    FAILS(PREFOPT_ERR_VERSION, "struct_size is 4", prefopt_context_options_init(&o, 4));
    OK(prefopt_context_options_init(&o, sizeof o));
    o.threads = -3;
    FAILS(PREFOPT_ERR_ARGUMENT, "threads is -3", prefopt_context_create(&context, &o));
    o.threads = 1;
    o.byte_budget = 0;
    FAILS(PREFOPT_ERR_ARGUMENT, "byte_budget is 0", prefopt_context_create(&context, &o));
    o.byte_budget = 1 << 20;
    o.allocate = counting_allocate;
    FAILS(PREFOPT_ERR_ARGUMENT, "release is NULL", prefopt_context_create(&context, &o));
    ck_assert_ptr_eq(context, &context); /* outputs are as before */
    prefopt_context_destroy(NULL);
}
END_TEST

START_TEST(larger_struct_from_the_future)
{
    struct {
        prefopt_context_options known;
        uint64_t unknown;
    } o;
    prefopt_context *context = NULL;
    memset(&o, 0xff, sizeof o);
    OK(prefopt_context_options_init(&o.known, sizeof o));
    ck_assert_uint_eq(o.unknown, 0);
    ck_assert_uint_eq(o.known.struct_size, sizeof o);
    OK(prefopt_context_create(&context, &o.known));
    prefopt_context_destroy(context);
    o.unknown = 1;
    FAILS(PREFOPT_ERR_VERSION, "not zero", prefopt_context_create(&context, &o.known));
}
END_TEST

START_TEST(allocator_may_fail)
{
    counting_allocator a = {0};
    prefopt_context *context = counting_context(&a);
    ck_assert_int_eq(a.live, 1);
    a.fail_at = a.calls + 1;
    ck_assert_ptr_null(pf_alloc(context, 10, 8));
    ck_assert_ptr_nonnull(strstr(prefopt_last_error(), "80 bytes"));
    ck_assert_ptr_null(pf_alloc(context, INT64_MAX, 8));
    ck_assert_ptr_nonnull(strstr(prefopt_last_error(), "overflows"));
    prefopt_context_destroy(context);
    ck_assert_int_eq(a.live, 0);
}
END_TEST

START_TEST(draws_depend_on_seed_stream_index_alone)
{
    double all[100], part[10], normal[2000];
    OK(prefopt_random_uniform(7, 3, 0, 100, all));
    OK(prefopt_random_uniform(7, 3, 40, 10, part));
    for (int i = 0; i < 10; i++)
        ck_assert_double_eq(part[i], all[40 + i]);
    double mean = 0, square = 0;
    OK(prefopt_random_normal(7, 4, 0, 2000, normal));
    for (int i = 0; i < 2000; i++) {
        mean += normal[i] / 2000;
        square += normal[i] * normal[i] / 2000;
    }
    ck_assert(fabs(mean) < 4 / sqrt(2000) && fabs(square - 1) < 4 * sqrt(2.0 / 2000));
    for (int i = 0; i < 100; i++)
        ck_assert(all[i] > 0 && all[i] < 1);
    OK(prefopt_random_uniform(7, 3, 0, 0, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "n is -1", prefopt_random_uniform(7, 3, 0, -1, all));
    FAILS(PREFOPT_ERR_ARGUMENT, "out is NULL", prefopt_random_normal(7, 3, 0, 1, NULL));
}
END_TEST

static void square_task(void *payload, int64_t task) { ((int64_t *)payload)[task] += task * task; }

static void *loop_on_thread(void *context)
{
    int64_t *out = calloc(1000, sizeof *out);
    for (int round = 0; round < 100; round++)
        pf_parallel_for(context, 1000, square_task, out);
    for (int64_t i = 0; i < 1000; i++)
        ck_assert_int_eq(out[i], 100 * i * i);
    free(out);
    return NULL;
}

START_TEST(parallel_loops_from_many_threads)
{
    prefopt_context *context = test_context(3);
    pthread_t thread[4];
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_create(&thread[i], NULL, loop_on_thread, context), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(permutation_is_one)
{
    int64_t order[257], seen[257] = {0};
    pf_permutation(1, 2, 257, order);
    for (int i = 0; i < 257; i++)
        seen[order[i]]++;
    for (int i = 0; i < 257; i++)
        ck_assert_int_eq(seen[i], 1);
}
END_TEST

START_TEST(layout_of_structs)
{
    ck_assert_int_eq(prefopt_sizeof("prefopt_context_options"), sizeof(prefopt_context_options));
    ck_assert_int_eq(prefopt_offsetof("prefopt_context_options", "byte_budget"), 8);
    ck_assert_int_eq(prefopt_sizeof("nothing"), -1);
    ck_assert_int_eq(prefopt_offsetof("prefopt_context_options", "nothing"), -1);
    ck_assert_int_eq(prefopt_sizeof(NULL), -1);
    ck_assert_int_eq(prefopt_offsetof("prefopt_context_options", NULL), -1);
}
END_TEST

TEST_MAIN("base", status_names_are_pinned, context_refuses_what_it_cannot_use,
          larger_struct_from_the_future, allocator_may_fail,
          draws_depend_on_seed_stream_index_alone, parallel_loops_from_many_threads,
          permutation_is_one, layout_of_structs)
