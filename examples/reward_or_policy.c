/* Lecture 22.5, hypothesis 5: reward models tell good from bad better than the rewards hidden in
 * policies, on pairs they have not seen and as judges of best of n. Three ways to fit the same
 * pairs: global    a reward model on a few features of the completion local     the sum of log pi
 * over the tokens of a policy, no reference implicit  DPO's own, beta log pi / pi_ref */
#include <math.h>

#include "support/cli.h"
#include "support/exact_world.h"
#include "support/intervals.h"
#include "support/plot.h"

enum {
    N_SEEDS = 20,
    N_PAIRS = 256,
    N_HELD_OUT = 2000,
    GLOBAL = 0,
    LOCAL,
    IMPLICIT,
    N_KINDS,
    N_BEST = 7
};
static const char *const name[N_KINDS] = {"global reward", "local reward", "implicit reward"};
static const double prior = 0.5;

static void fit(prefopt_reward *reward, const prefopt_dataset *pairs, int kind)
{
    prefopt_trainer *trainer;
    prefopt_train_options train;
    CALL(prefopt_train_options_init(&train, sizeof train));
    train.ridge = kind == GLOBAL ? prior : 0;
    train.score_ridge = kind == GLOBAL ? 0 : prior;
    CALL(prefopt_trainer_create_reward(&trainer, reward, pairs, NULL, &train));
    CALL(prefopt_trainer_fit(trainer, NULL));
    prefopt_trainer_destroy(trainer);
}

static double log_likelihood[N_KINDS][N_SEEDS], accuracy[N_KINDS][N_SEEDS],
    chance[N_KINDS][N_SEEDS];
static double best[N_KINDS + 1][N_BEST][N_SEEDS]; /* the last row: the truth as judge */
static const int64_t n_values[N_BEST] = {1, 2, 4, 8, 16, 32, 64};

/* One world: each reward fitted to its pairs, then measured on pairs it has not seen. */
static void measure(int seed)
{
    world w;
    world_create(&w, 2000 + (uint64_t)seed, 3, REWARD_FEATURES, 0, 0.5);
    prefopt_dataset *pairs = world_pairs(&w, 0, N_PAIRS);
    prefopt_dataset *held_out = world_pairs(&w, N_PAIRS, N_HELD_OUT);
    prefopt_policy *uniform = world_policy(&w);
    double value[N_BEST];
    for (int kind = 0; kind < N_KINDS; kind++) {
        prefopt_policy *policy = world_policy(&w);
        prefopt_reward *reward;
        if (kind == GLOBAL)
            CALL(prefopt_reward_create_linear(&reward, w.context, &w.sequences, w.n_features,
                                              w.features));
        else if (kind == LOCAL)
            CALL(prefopt_reward_create_local(&reward, policy));
        else
            CALL(prefopt_reward_create_implicit(&reward, policy, w.reference, w.beta));
        fit(reward, pairs, kind);
        prefopt_preference_fit f = {.struct_size = sizeof f};
        CALL(prefopt_report_preference_fit(&f, reward, held_out));
        log_likelihood[kind][seed] = f.log_likelihood;
        accuracy[kind][seed] = f.accuracy;
        chance[kind][seed] = f.likelihood;
        CALL(prefopt_report_best_of_n(uniform, reward, w.truth, w.prompts, N_BEST, n_values, value,
                                      NULL));
        for (int k = 0; k < N_BEST; k++)
            best[kind][k][seed] = value[k];
        prefopt_reward_destroy(reward);
        prefopt_policy_destroy(policy);
    }
    CALL(prefopt_report_best_of_n(uniform, w.truth, w.truth, w.prompts, N_BEST, n_values, value,
                                  NULL));
    for (int k = 0; k < N_BEST; k++)
        best[N_KINDS][k][seed] = value[k];
    prefopt_policy_destroy(uniform);
    prefopt_dataset_destroy(held_out);
    prefopt_dataset_destroy(pairs);
    world_destroy(&w);
}

int main(int argc, char **argv)
{
    const char *picture = argc > 1 ? argv[1] : "reward_or_policy.svg";
    for (int seed = 0; seed < N_SEEDS; seed++) {
        measure(seed);
        progress_line("seeds", seed + 1, N_SEEDS);
    }

    double half[3], mean[N_KINDS], ahead[N_SEEDS], gap_half, x[N_BEST], y[N_BEST], low[N_BEST],
        high[N_BEST];
    printf("held-out pairs, mean +- 95 %% over %d seeds, %d training pairs\n%-16s %20s %18s %18s\n",
           N_SEEDS, N_PAIRS, "", "log-likelihood", "P(label)", "accuracy");
    for (int kind = 0; kind < N_KINDS; kind++) {
        mean[kind] = mean_of(N_SEEDS, log_likelihood[kind], &half[0]);
        double p = mean_of(N_SEEDS, chance[kind], &half[1]),
               a = mean_of(N_SEEDS, accuracy[kind], &half[2]);
        printf("%-16s %9.4f +- %6.4f %9.4f +- %5.3f %9.4f +- %5.3f\n", name[kind], mean[kind],
               half[0], p, half[1], a, half[2]);
    }
    for (int i = 0; i < N_SEEDS; i++)
        ahead[i] = log_likelihood[GLOBAL][i] - log_likelihood[IMPLICIT][i];
    double gap = mean_of(N_SEEDS, ahead, &gap_half), last[N_KINDS + 1];
    printf("global ahead of implicit by %.4f +- %.4f nats a pair\n\ntrue reward of the best of "
           "n\n%-16s",
           gap, gap_half, "");
    plot *p = plot_open(picture, 1, "Best of n: who should judge?");
    plot_panel(p, "", "n", "true reward", NULL, NULL);
    plot_set(p, "set logscale x 2; set key top left");
    for (int k = 0; k < N_BEST; k++)
        printf(" %8lld", (long long)n_values[k]);
    for (int kind = 0; kind <= N_KINDS; kind++) {
        printf("\n%-16s", kind < N_KINDS ? name[kind] : "the truth");
        for (int k = 0; k < N_BEST; k++) {
            x[k] = (double)n_values[k];
            y[k] = mean_of(N_SEEDS, best[kind][k], &half[0]);
            low[k] = y[k] - half[0];
            high[k] = y[k] + half[0];
            printf(" %8.4f", y[k]);
        }
        last[kind] = y[N_BEST - 1];
        plot_curve(p, kind < N_KINDS ? name[kind] : "the truth", N_BEST, x, y, low, high);
    }
    printf("\n");
    if (plot_close(p) == 0)
        printf("picture: %s\n", picture);
    return gap > gap_half && last[GLOBAL] > last[IMPLICIT] && last[GLOBAL] > last[LOCAL] ? 0 : 1;
}
