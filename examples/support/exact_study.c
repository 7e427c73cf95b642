/* The lecture's controlled study in a world that can be enumerated (22.5.2, figure 22.3): the same
 * pairs and the same loss, J against their number, for
 *   - offline DPO: the policy from the pairs, over every policy;
 *   - two-stage, rich: a reward model as rich as the policies, then its soft-optimal policy;
 *   - two-stage, simple: a reward model that sees a few features, then its soft-optimal policy;
 *   - online DPO: the same simple reward model, its policy found by sampling and ranking.
 * Two controls take the gap away: a horizon of one with one feature a completion, and a reward
 * without anything simple to learn. */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>

#include "cli.h"
#include "exact_world.h"
#include "intervals.h"
#include "plot.h"
#include "studies.h"

enum {
    OFFLINE,
    RICH,
    SIMPLE,
    ONLINE,
    N_ARMS,
    N_SEEDS = 20,
    N_SIZES = 9,
    N_HORIZONS = 4,
    N_CELLS = 15
};
static const char *const arm_name[N_ARMS] = {"offline DPO", "two-stage, rich reward",
                                             "two-stage, simple reward", "online DPO"};
static const double beta = 0.5, prior = 0.5; /* the same prior on scores for every arm */

/* A cell of the study: what varies beside the seed. */
typedef struct {
    int horizon, n_pairs, one_feature_each;
    reward_kind kind;
} cell;
static cell cells[N_CELLS];
static double score[N_CELLS][N_ARMS][N_SEEDS];
static _Atomic int next_job;

/* Fits a reward model to the pairs and gives its soft-optimal policy (or trains one online). */
static double two_stage(const world *w, const prefopt_dataset *pairs, int arm)
{
    prefopt_reward *reward;
    prefopt_trainer *trainer;
    prefopt_train_options train;
    prefopt_policy *policy = world_policy(w);
    CALL(prefopt_train_options_init(&train, sizeof train));
    train.score_ridge = arm == RICH ? prior : 0;
    train.ridge = arm == RICH ? 0 : prior;
    if (arm == RICH)
        CALL(prefopt_reward_create_tabular(&reward, w->context, &w->sequences));
    else
        CALL(prefopt_reward_create_linear(&reward, w->context, &w->sequences, w->n_features,
                                          w->features));
    CALL(prefopt_trainer_create_reward(&trainer, reward, pairs, NULL, &train));
    CALL(prefopt_trainer_fit(trainer, NULL));
    prefopt_trainer_destroy(trainer);
    if (arm == ONLINE) {
        prefopt_dpo_options dpo;
        prefopt_sampler_options sampler;
        prefopt_ranker_options ranker;
        int64_t rows[8 * WORLD_PROMPTS];
        prefopt_dataset *prompts;
        for (int i = 0; i < 8 * WORLD_PROMPTS; i++)
            rows[i] = i % WORLD_PROMPTS;
        CALL(prefopt_dataset_select(&prompts, w->prompts, rows, 8 * WORLD_PROMPTS));
        CALL(prefopt_dpo_options_init(&dpo, sizeof dpo));
        CALL(prefopt_sampler_options_init(&sampler, sizeof sampler));
        CALL(prefopt_ranker_options_init(&ranker, sizeof ranker));
        CALL(prefopt_train_options_init(&train, sizeof train));
        dpo.beta = beta;
        sampler.n = 4;
        sampler.seed = w->seed;
        ranker.soft_labels = 1;
        train.learning_rate = 0.1;
        train.schedule = PREFOPT_COSINE;
        train.schedule_steps = 200;
        CALL(prefopt_trainer_create_online_dpo(&trainer, policy, w->reference, reward, prompts,
                                               &dpo, &sampler, &ranker, NULL, &train));
        CALL(prefopt_trainer_run(trainer, 200, NULL));
        prefopt_trainer_destroy(trainer);
        prefopt_dataset_destroy(prompts);
    } else {
        double *r = doubles(w->n_sequences), *logp = doubles(w->n_sequences);
        CALL(prefopt_reward_scores(reward, &w->sequences, r));
        CALL(prefopt_reference_logprobs(w->reference, &w->sequences, logp));
        for (int64_t x = 0; x < WORLD_PROMPTS; x++)
            CALL(prefopt_soft_optimal(w->n_each, logp + x * w->n_each, r + x * w->n_each, beta,
                                      logp + x * w->n_each, NULL));
        CALL(prefopt_policy_set_logprobs(policy, &w->sequences, logp));
        free(r);
        free(logp);
    }
    double value = world_score(w, policy);
    prefopt_policy_destroy(policy);
    prefopt_reward_destroy(reward);
    return value;
}

static double offline(const world *w, const prefopt_dataset *pairs)
{
    prefopt_trainer *trainer;
    prefopt_dpo_options dpo;
    prefopt_train_options train;
    prefopt_policy *policy = world_policy(w);
    CALL(prefopt_dpo_options_init(&dpo, sizeof dpo));
    CALL(prefopt_train_options_init(&train, sizeof train));
    dpo.beta = beta;
    train.score_ridge = prior;
    CALL(prefopt_trainer_create_dpo(&trainer, policy, w->reference, pairs, &dpo, &train));
    CALL(prefopt_trainer_fit(trainer, NULL));
    double value = world_score(w, policy);
    prefopt_trainer_destroy(trainer);
    prefopt_policy_destroy(policy);
    return value;
}

static void *work(void *unused)
{
    for (int job; (job = next_job++) < N_CELLS * N_SEEDS;) {
        cell c = cells[job / N_SEEDS];
        int seed = job % N_SEEDS;
        world w;
        world_create(&w, 1000 + (uint64_t)seed, c.horizon, c.kind, c.one_feature_each, beta);
        prefopt_dataset *pairs = world_pairs(&w, 0, c.n_pairs);
        for (int arm = 0; arm < N_ARMS; arm++)
            score[job / N_SEEDS][arm][seed] =
                arm == OFFLINE ? offline(&w, pairs) : two_stage(&w, pairs, arm);
        prefopt_dataset_destroy(pairs);
        world_destroy(&w);
        progress_line("study", job + 1, N_CELLS * N_SEEDS);
    }
    return unused;
}

static double gap_of(int at, double *half)
{
    double gap[N_SEEDS];
    for (int i = 0; i < N_SEEDS; i++)
        gap[i] = score[at][SIMPLE][i] - score[at][OFFLINE][i];
    return mean_of(N_SEEDS, gap, half);
}

static void print_cell(const char *what, double value, int at)
{
    double half, gap = gap_of(at, &half), own;
    printf("%-10s %6g", what, value);
    for (int arm = 0; arm < N_ARMS; arm++) {
        double mean = mean_of(N_SEEDS, score[at][arm], &own);
        printf("   %6.3f +- %5.3f", mean, own);
    }
    printf("   gap %+6.3f +- %5.3f\n", gap, half);
}

/* Pairs that an arm needs for this score, by interpolation on a logarithmic scale; NaN: never. */
static double pairs_needed(const double *mean, double wanted)
{
    for (int i = 1; i < N_SIZES; i++)
        if (mean[i] >= wanted && mean[i - 1] < wanted)
            return cells[i].n_pairs * pow(2, (wanted - mean[i]) / (mean[i] - mean[i - 1]));
    return mean[0] >= wanted ? cells[0].n_pairs : NAN;
}

int exact_study(const char *picture)
{
    for (int i = 0; i < N_SIZES; i++)
        cells[i] = (cell){.horizon = 3, .n_pairs = 16 << i};
    for (int h = 1; h <= N_HORIZONS; h++)
        cells[N_SIZES + h - 1] = (cell){.horizon = h, .n_pairs = 256};
    cells[N_SIZES + N_HORIZONS] = (cell){.horizon = 1, .n_pairs = 256, .one_feature_each = 1};
    cells[N_SIZES + N_HORIZONS + 1] =
        (cell){.horizon = 2, .n_pairs = 256, .one_feature_each = 1, .kind = REWARD_TABLE};
    pthread_t other;
    int two = pthread_create(&other, NULL, work, NULL) == 0;
    work(NULL);
    if (two)
        pthread_join(other, NULL);

    double x[N_SIZES], h[N_HORIZONS], mean[N_ARMS][N_SIZES], low[N_SIZES], high[N_SIZES], half;
    printf("share of the way from the reference to the best J, mean +- 95 %% over %d seeds\n%17s",
           N_SEEDS, "");
    for (int arm = 0; arm < N_ARMS; arm++)
        printf("  %-24.24s", arm_name[arm]);
    printf("\n");
    for (int i = 0; i < N_SIZES; i++)
        print_cell("pairs", x[i] = cells[i].n_pairs, i);
    for (int i = 0; i < N_HORIZONS; i++)
        print_cell("horizon", h[i] = i + 1, N_SIZES + i);
    print_cell("control a", 256, N_SIZES + N_HORIZONS);
    print_cell("control b", 256, N_SIZES + N_HORIZONS + 1);

    plot *p = plot_open(picture, 2, "Where checking is simple, two stages need fewer pairs");
    plot_panel(p, "Horizon 3", "preference pairs", "J: reference 0, best 1", NULL, "[-0.1:1.05]");
    plot_set(p, "set logscale x 2; set key bottom right");
    for (int arm = 0; arm < N_ARMS; arm++) {
        for (int i = 0; i < N_SIZES; i++) {
            mean[arm][i] = mean_of(N_SEEDS, score[i][arm], &half);
            low[i] = mean[arm][i] - half;
            high[i] = mean[arm][i] + half;
        }
        plot_curve(p, arm_name[arm], N_SIZES, x, mean[arm], low, high);
    }
    plot_panel(p, "256 pairs", "horizon", "J: reference 0, best 1", "[0.9:4.1]", NULL);
    plot_set(p, "set xtics 1; set key bottom left");
    for (int arm = 0; arm < N_ARMS; arm++) {
        double m[N_HORIZONS], lo[N_HORIZONS], hi[N_HORIZONS];
        for (int i = 0; i < N_HORIZONS; i++) {
            m[i] = mean_of(N_SEEDS, score[N_SIZES + i][arm], &half);
            lo[i] = m[i] - half;
            hi[i] = m[i] + half;
        }
        plot_curve(p, arm_name[arm], N_HORIZONS, h, m, lo, hi);
    }
    if (plot_close(p) == 0)
        printf("picture: %s\n", picture);
    double needs[N_ARMS], gap[N_CELLS];
    for (int arm = 0; arm < N_ARMS; arm++)
        needs[arm] = pairs_needed(mean[arm], 0.8);
    for (int i = 0; i < N_CELLS; i++)
        gap[i] = gap_of(i, &half);
    printf("pairs for 0.8: offline DPO %.0f, two-stage rich %.0f, two-stage simple %.0f, online "
           "%.0f\n",
           needs[OFFLINE], needs[RICH], needs[SIMPLE], needs[ONLINE]);
    int last = N_SIZES + N_HORIZONS;
    return needs[SIMPLE] * 3 < needs[OFFLINE] && gap[last - 1] > gap[N_SIZES] &&
                   fabs(gap[last]) < 0.02 && fabs(gap[last + 1]) < 0.02
               ? 0
               : 1;
}
