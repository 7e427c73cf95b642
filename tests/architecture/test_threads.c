/* Distinct handles on many threads, and one reading handle shared by all: the same bits as alone,
 * and nothing for the thread sanitizer to say. */
#include <pthread.h>

#include "pf_test.h"

enum { N_THREADS = 4, VOCAB = 3, HORIZON = 2, N = 9 };

static prefopt_reference *shared_reference;
static prefopt_dataset *shared_pairs;
static prefopt_context *shared_context;

static void make_shared(void)
{
    prefopt_space space = {sizeof space, -1, VOCAB, HORIZON};
    shared_context = test_context(2);
    OK(prefopt_reference_create_uniform(&shared_reference, shared_context, &space));
    OK(prefopt_dataset_create(&shared_pairs, shared_context));
    for (int32_t i = 0; i < N; i++)
        for (int32_t j = 0; j < N; j++) {
            int32_t chosen[] = {i / 3, i % 3}, rejected[] = {j / 3, j % 3};
            if (i != j)
                OK(prefopt_dataset_append_pair(shared_pairs, NULL, 0, chosen, 2, rejected, 2, 1,
                                               prefopt_sigmoid(0.3 * (i - j)), 0));
        }
}

static void destroy_shared(void)
{
    prefopt_dataset_destroy(shared_pairs);
    prefopt_reference_destroy(shared_reference);
    prefopt_context_destroy(shared_context);
}

/* A whole pipeline with handles of its own: DPO to the optimum, samples, ranked by the implicit
 * reward, three online steps; the log-probabilities at the end. */
static void pipeline(prefopt_context *context, double *logp)
{
    prefopt_space space = {sizeof space, -1, VOCAB, HORIZON};
    prefopt_policy *policy;
    prefopt_reference *frozen;
    prefopt_reward *reward;
    prefopt_trainer *trainer;
    prefopt_dataset *prompts, *all;
    prefopt_row row;
    prefopt_train_options train;
    prefopt_sampler_options sampler;
    prefopt_sequences view = {.struct_size = sizeof view};
    OK(prefopt_policy_create_tabular(&policy, context, &space, NULL));
    OK(prefopt_trainer_create_dpo(&trainer, policy, shared_reference, shared_pairs, NULL, NULL));
    OK(prefopt_trainer_fit(trainer, NULL));
    prefopt_trainer_destroy(trainer);
    OK(prefopt_reference_freeze(&frozen, policy));
    OK(prefopt_reward_create_implicit(&reward, policy, shared_reference, 0.1));
    OK(prefopt_dataset_create(&prompts, context));
    OK(prefopt_row_init(&row, sizeof row));
    for (int i = 0; i < 8; i++)
        OK(prefopt_dataset_append(prompts, &row));
    OK(prefopt_sampler_options_init(&sampler, sizeof sampler));
    OK(prefopt_train_options_init(&train, sizeof train));
    sampler.n = 4;
    OK(prefopt_trainer_create_online_dpo(&trainer, policy, frozen, reward, prompts, NULL, &sampler,
                                         NULL, NULL, &train));
    OK(prefopt_trainer_run(trainer, 3, NULL));
    prefopt_trainer_destroy(trainer);
    OK(prefopt_policy_enumerate(&all, policy, shared_pairs, 0));
    OK(prefopt_dataset_sequences(all, &view));
    view.n = N;
    OK(prefopt_policy_logprobs(policy, &view, logp, NULL));
    prefopt_dataset_destroy(all);
    prefopt_dataset_destroy(prompts);
    prefopt_reward_destroy(reward);
    prefopt_reference_destroy(frozen);
    prefopt_policy_destroy(policy);
}

typedef struct {
    int number;
    prefopt_context *context; /* NULL: one of its own */
    double logp[N];
} job;

static void *run(void *argument)
{
    job *j = argument;
    char expected[64];
    double kl;
    prefopt_context *context = j->context != NULL ? j->context : test_context(1 + j->number % 2);
    /* The error text is the thread's own. */
    ck_assert_str_eq(prefopt_last_error(), "");
    ck_assert_int_lt(prefopt_kl_exact(100 + j->number, 0, NULL, NULL, &kl, NULL), 0);
    pipeline(context, j->logp);
    snprintf(expected, sizeof expected, "%d", 100 + j->number);
    ck_assert_ptr_nonnull(strstr(prefopt_last_error(), expected));
    if (j->context == NULL)
        prefopt_context_destroy(context);
    return NULL;
}

static void run_all(prefopt_context *context)
{
    pthread_t thread[N_THREADS];
    job jobs[N_THREADS];
    double alone[N];
    make_shared();
    prefopt_context *mine = test_context(1);
    pipeline(mine, alone);
    prefopt_context_destroy(mine);
    for (int i = 0; i < N_THREADS; i++) {
        jobs[i] = (job){.number = i, .context = context};
        ck_assert_int_eq(pthread_create(&thread[i], NULL, run, &jobs[i]), 0);
    }
    for (int i = 0; i < N_THREADS; i++) {
        pthread_join(thread[i], NULL);
        ck_assert_mem_eq(jobs[i].logp, alone, sizeof alone);
    }
    destroy_shared();
}

START_TEST(contexts_of_their_own) { run_all(NULL); }
END_TEST

START_TEST(one_context_for_all)
{
    prefopt_context *context = test_context(3);
    run_all(context);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("threads", contexts_of_their_own, one_context_for_all)
