/* A run to be saved, and a new folder for each test. Define _GNU_SOURCE before it. */
#ifndef SAVED_RUN_H
#define SAVED_RUN_H

#include "every_objective.h"
#include "saved_test.h"

static char base[PATH_ROOM];

static inline void new_base(void) { new_folder(base); }

static inline void remove_base(void) { remove_all(base); }

/* What main() returns: each test in a folder of its own. */
static inline int saved_test_run(const char *name, const TTest *const *tests, size_t n_tests)
{
    Suite *suite = suite_create(name);
    TCase *group = tcase_create(name);
    tcase_set_timeout(group, 0);
    tcase_add_checked_fixture(group, new_base, remove_base);
    for (size_t i = 0; i < n_tests; i++)
        tcase_add_test(group, tests[i]);
    suite_add_tcase(suite, group);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* A trainer that has taken some steps, and all its bytes, by a save. */
typedef struct {
    prefopt_context *context;
    setting s;
    prefopt_policy *policy;
    prefopt_train_options o;
    prefopt_trainer *trainer;
} one;

static inline one one_new(prefopt_context *context)
{
    one x = {.context = context, .s = setting_new(context), .o = train_defaults()};
    x.o.batch = 3;
    x.policy = tabular_policy(&x.s.w);
    randomise(x.policy, 3, 0.5);
    OK(make_dpo(&x.trainer, &x.s, x.policy, &x.o));
    return x;
}

static inline void one_free(one *x)
{
    prefopt_trainer_destroy(x->trainer);
    prefopt_policy_destroy(x->policy);
    setting_free(&x->s);
}

#endif
