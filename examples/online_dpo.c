/* Lecture 22.5: online DPO. Sample from the policy, rank by the reward, top and bottom become a new
 * pair, one DPO step; again. With soft labels it goes to the optimum of J; with hard labels J peaks
 * and falls, as hard labels have no finite optimum and the KL grows. */
#include <math.h>

#include "support/cli.h"
#include "support/plot.h"

enum { VOCAB = 4, HORIZON = 2, N = 16, ROUNDS = 60, STEPS = 10 };

static double j[2][ROUNDS + 1], kl[2][ROUNDS + 1], step[ROUNDS + 1], optimum[ROUNDS + 1];

/* ROUNDS * STEPS steps of online DPO; J and KL on the way. */
static void train_online(prefopt_context *context, prefopt_reference *reference,
                         prefopt_reward *truth, const prefopt_dataset *prompts, int soft)
{
    const double beta = 1;
    prefopt_space space = {
        .struct_size = sizeof space, .eos = -1, .vocab = VOCAB, .horizon = HORIZON};
    prefopt_objective o = {.struct_size = sizeof o};
    prefopt_policy *policy;
    prefopt_trainer *trainer;
    prefopt_dpo_options dpo;
    prefopt_sampler_options sampler;
    prefopt_ranker_options ranker;
    prefopt_train_options train;
    CALL(prefopt_dpo_options_init(&dpo, sizeof dpo));
    CALL(prefopt_sampler_options_init(&sampler, sizeof sampler));
    CALL(prefopt_ranker_options_init(&ranker, sizeof ranker));
    CALL(prefopt_train_options_init(&train, sizeof train));
    dpo.beta = beta;
    sampler.n = 4;
    ranker.soft_labels = soft;
    train.learning_rate = 0.02;
    train.schedule = PREFOPT_COSINE;
    train.schedule_steps = ROUNDS * STEPS;
    CALL(prefopt_policy_create_tabular(&policy, context, &space, NULL));
    CALL(prefopt_trainer_create_online_dpo(&trainer, policy, reference, truth, prompts, &dpo,
                                           &sampler, &ranker, NULL, &train));
    for (int i = 0; i <= ROUNDS; i++) {
        CALL(prefopt_report_objective(&o, policy, reference, truth, prompts, beta));
        step[i] = i * STEPS;
        j[soft][i] = o.j;
        kl[soft][i] = o.kl;
        optimum[i] = o.optimum;
        if (i < ROUNDS)
            CALL(prefopt_trainer_run(trainer, STEPS, NULL));
    }
    printf("%s labels: J = %.4f at the end, optimum %.4f, KL %.4f\n", soft ? "soft" : "hard", o.j,
           o.optimum, o.kl);
    prefopt_trainer_destroy(trainer);
    prefopt_policy_destroy(policy);
}

int main(int argc, char **argv)
{
    const char *picture = argc > 1 ? argv[1] : "online_dpo.svg";
    prefopt_context *context;
    prefopt_dataset *prompts, *all;
    prefopt_policy *uniform_policy;
    prefopt_reference *reference;
    prefopt_reward *truth;
    prefopt_row prompt;
    prefopt_space space = {
        .struct_size = sizeof space, .eos = -1, .vocab = VOCAB, .horizon = HORIZON};
    CALL(prefopt_context_create(&context, NULL));
    CALL(prefopt_dataset_create(&prompts, context));
    /* The empty prompt, 32 times: 32 pairs a step. */
    CALL(prefopt_row_init(&prompt, sizeof prompt));
    for (int i = 0; i < 32; i++)
        CALL(prefopt_dataset_append(prompts, &prompt));
    CALL(prefopt_policy_create_tabular(&uniform_policy, context, &space, NULL));
    CALL(prefopt_reference_create_uniform(&reference, context, &space));
    CALL(prefopt_policy_enumerate(&all, uniform_policy, prompts, 0));
    prefopt_sequences sequences = {.struct_size = sizeof sequences};
    prefopt_parameters rewards = {.struct_size = sizeof rewards};
    CALL(prefopt_dataset_sequences(all, &sequences));
    CALL(prefopt_reward_create_tabular(&truth, context, &sequences));
    CALL(prefopt_reward_parameters(truth, &rewards));
    CALL(prefopt_random_normal(3, 0, 0, N, rewards.value));
    CALL(prefopt_reward_updated(truth));

    train_online(context, reference, truth, prompts, 1);
    train_online(context, reference, truth, prompts, 0);
    double gain = (j[1][ROUNDS] - j[1][0]) / (optimum[0] - j[1][0]), peak = j[0][0];
    for (int i = 0; i <= ROUNDS; i++)
        peak = fmax(peak, j[0][i]);
    printf("soft labels: %.2f %% of the way from the reference to the optimum\n", 100 * gain);
    printf("hard labels: peak J %.4f, %.4f at the end\n", peak, j[0][ROUNDS]);
    plot *p = plot_open(picture, 2, "Online DPO: top against bottom of 4 samples");
    plot_panel(p, "J = E[r] - beta KL", "step", "J", NULL, NULL);
    plot_set(p, "set key bottom right");
    plot_curve(p, "soft labels", ROUNDS + 1, step, j[1], NULL, NULL);
    plot_curve(p, "hard labels", ROUNDS + 1, step, j[0], NULL, NULL);
    plot_curve(p, "optimum", ROUNDS + 1, step, optimum, NULL, NULL);
    plot_panel(p, "KL(policy || reference)", "step", "nats", NULL, NULL);
    plot_curve(p, "soft labels", ROUNDS + 1, step, kl[1], NULL, NULL);
    plot_curve(p, "hard labels", ROUNDS + 1, step, kl[0], NULL, NULL);
    if (plot_close(p) == 0)
        printf("picture: %s\n", picture);

    prefopt_reward_destroy(truth);
    prefopt_reference_destroy(reference);
    prefopt_policy_destroy(uniform_policy);
    prefopt_dataset_destroy(all);
    prefopt_dataset_destroy(prompts);
    prefopt_context_destroy(context);
    return gain >= 0.99 && j[0][ROUNDS] < peak ? 0 : 1;
}
