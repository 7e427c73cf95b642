/* Tables and pictures of the gap study. */
#include <math.h>

#include "cli.h"
#include "intervals.h"
#include "plot.h"
#include "studies.h"

enum { MAX_SEEDS = 1000 };

int gap_over_seeds(const gap_results *r, const gap_job *jobs, int n_jobs, gap_job_kind kind,
                   int64_t n_pairs, const char *key, double *value)
{
    int n = 0;
    for (int i = 0; i < n_jobs && n < MAX_SEEDS; i++) {
        if (jobs[i].kind != kind || (n_pairs != 0 && jobs[i].n_pairs != n_pairs))
            continue;
        const gap_record *record = gap_results_find(r, jobs[i].name);
        double x = record == NULL ? NAN : gap_get(record, "%s", key);
        if (!isnan(x))
            value[n++] = x;
    }
    return n;
}

typedef struct {
    const gap_results *r;
    const gap_job *jobs;
    int n_jobs;
    gap_job_kind kind;
    int64_t n_pairs;
} view;

/* Mean and half width of the 95 % interval; of the paired difference to `less` when there is one.
 * NaN where there is nothing, or one seed alone. */
static double mean_over(const view *v, const char *key, const char *less, double *half)
{
    static _Thread_local double x[MAX_SEEDS], y[MAX_SEEDS];
    int n = gap_over_seeds(v->r, v->jobs, v->n_jobs, v->kind, v->n_pairs, key, x);
    *half = NAN;
    if (less != NULL) {
        if (gap_over_seeds(v->r, v->jobs, v->n_jobs, v->kind, v->n_pairs, less, y) != n)
            return NAN;
        for (int i = 0; i < n; i++)
            x[i] -= y[i];
    }
    if (n < 2)
        return n == 1 ? x[0] : NAN;
    return mean_of(n, x, half);
}

static void print_cell(const view *v, const char *key, const char *less, const char *sign)
{
    double half, mean = mean_over(v, key, less, &half);
    char text[64] = "";
    if (isnan(mean))
        snprintf(text, sizeof text, "-");
    else if (isnan(half))
        snprintf(text, sizeof text, sign[0] == '+' ? "%+.3f" : "%.3f", mean);
    else
        snprintf(text, sizeof text, sign[0] == '+' ? "%+.3f +- %.3f" : "%.3f +- %.3f", mean, half);
    printf("  %-16s", text);
}

static const char *success_of(const gap_study *s)
{
    return s->kind == WORLD_SUDOKU ? "sampled" : "hit";
}

/* Key of an arm's success after its last step. */
static void final_key(const gap_study *s, const gap_setting *setting, int arm, char key[64])
{
    if (s->kind == WORLD_SUDOKU)
        snprintf(key, 64, "%s.sampled@%lld", gap_arm_key[arm], (long long)setting->steps);
    else
        snprintf(key, 64, "%s.hit@%lld", gap_arm_key[arm], (long long)setting->steps);
}

static void print_arms(const gap_study *s, const view *v, const gap_setting *setting)
{
    char key[64], offline[64];
    printf("\n%-38s  %-16s  %-16s  %-16s  %-16s  %-8s  %-6s  %s\n",
           v->kind == JOB_TUNED ? "each arm at its best setting" : "the same setting for all",
           success_of(s), "less offline", "KL to SFT, nats", "on training part", "rate", "beta",
           "steps");
    printf("%-38s", "SFT");
    print_cell(v, s->kind == WORLD_SUDOKU ? "sft.sampled" : "sft.hit", NULL, "");
    printf("\n");
    for (int arm = 0; arm < N_GAP_ARMS; arm++) {
        if (!(s->arms >> arm & 1))
            continue;
        final_key(s, &setting[arm], arm, key);
        final_key(s, &setting[ARM_OFFLINE], ARM_OFFLINE, offline);
        printf("%-38s", gap_arm_label[arm]);
        print_cell(v, key, NULL, "");
        print_cell(v, key, arm == ARM_OFFLINE ? "none" : offline, "+");
        snprintf(key, sizeof key, "%s.kl@%lld", gap_arm_key[arm], (long long)setting[arm].steps);
        print_cell(v, key, NULL, "");
        snprintf(key, sizeof key, "%s.train_hit", gap_arm_key[arm]);
        print_cell(v, key, NULL, "");
        printf("  %-8g  %-6g  %lld\n", setting[arm].learning_rate, setting[arm].beta,
               (long long)setting[arm].steps);
    }
}

static void print_diagnostics(const gap_study *s, const view *v)
{
    static const char *const column[] = {"k1",
                                         "k2",
                                         "k3",
                                         "uncovered",
                                         "uncovered_hit",
                                         "chosen_success",
                                         "rejected_success",
                                         "moved_chosen",
                                         "moved_rejected",
                                         "both_fell",
                                         "whole",
                                         "greedy",
                                         "greedy_whole"};
    enum { N = sizeof column / sizeof column[0] };
    char key[64];
    printf("\n%-38s", "");
    for (int i = 0; i < N; i++)
        printf("  %-16s", column[i]);
    printf("\n");
    for (int arm = -1; arm < N_GAP_ARMS; arm++) {
        if (arm >= 0 && !(s->arms >> arm & 1))
            continue;
        printf("%-38s", arm < 0 ? "SFT" : gap_arm_label[arm]);
        for (int i = 0; i < N; i++) {
            snprintf(key, sizeof key, "%s.%s", arm < 0 ? "sft" : gap_arm_key[arm], column[i]);
            print_cell(v, key, NULL, "");
        }
        printf("\n");
    }
}

static const char *const judge_key[] = {"oracle", "reward", "implicit", "local"};
static const char *const judge_label[] = {"the truth itself", "reward model (global)",
                                          "implicit reward of DPO", "local, beta sum log pi"};
enum { N_JUDGES = 4, N_BEST = 7 };

static void print_judges(const view *v)
{
    char key[64];
    printf("\n%-38s  %-16s  %-16s  %-16s", "held-out pairs; best of n of SFT", "accuracy",
           "likelihood", "log-likelihood");
    for (int i = 1; i < N_BEST; i++)
        printf("  best of %-8d", 1 << i);
    printf("\n");
    for (int j = 0; j < N_JUDGES; j++) {
        static const char *const column[] = {"accuracy", "likelihood", "loglik"};
        printf("%-38s", judge_label[j]);
        for (int i = 0; i < 3; i++) {
            snprintf(key, sizeof key, "%s.%s", judge_key[j], column[i]);
            print_cell(v, key, NULL, "");
        }
        for (int i = 1; i < N_BEST; i++) {
            snprintf(key, sizeof key, "%s.best_of_%d", judge_key[j], 1 << i);
            print_cell(v, key, NULL, "");
        }
        printf("\n");
    }
}

static const gap_job *job_of(const gap_job *jobs, int n_jobs, gap_job_kind kind)
{
    for (int i = 0; i < n_jobs; i++)
        if (jobs[i].kind == kind)
            return &jobs[i];
    return NULL;
}

static const int curve_arm[] = {ARM_OFFLINE, ARM_ONE_TOP, ARM_ONE_RANDOM};
enum { N_CURVE_ARMS = 3 };

static void print_sizes(const gap_study *s, const view *v, const gap_setting *setting)
{
    char key[64], offline[64];
    printf("\n%-8s", "pairs");
    for (int a = 0; a < N_CURVE_ARMS; a++)
        printf("  %-34s", gap_arm_label[curve_arm[a]]);
    printf("  %-16s  %-16s  %s\n", "random - offline", "reward accuracy", "implicit accuracy");
    final_key(s, &setting[ARM_OFFLINE], ARM_OFFLINE, offline);
    for (int i = 0; i < GAP_PAIR_SIZES; i++) {
        view at = *v;
        at.n_pairs = gap_pair_sizes[i];
        printf("%-8lld", (long long)at.n_pairs);
        for (int a = 0; a < N_CURVE_ARMS; a++) {
            final_key(s, &setting[curve_arm[a]], curve_arm[a], key);
            print_cell(&at, key, NULL, "");
            printf("%18s", "");
        }
        print_cell(&at, key, offline, "+");
        print_cell(&at, "reward.accuracy", NULL, "");
        print_cell(&at, "implicit.accuracy", NULL, "");
        printf("\n");
    }
}

void gap_report(const gap_study *s, const gap_results *r, const gap_job *jobs, int n_jobs)
{
    for (int kind = JOB_MAIN; kind <= JOB_TUNED; kind++) {
        const gap_job *job = job_of(jobs, n_jobs, kind);
        if (job == NULL)
            continue;
        view v = {r, jobs, n_jobs, kind, 0};
        if (kind == JOB_MAIN) {
            printf("mean over %d seed%s%s; legal walks after SFT: ", s->n_seeds,
                   s->n_seeds == 1 ? "" : "s", s->n_seeds > 1 ? " +- 95 %" : "");
            print_cell(&v, "sft_free.sampled_legal", NULL, "");
            printf("informative pairs:");
            print_cell(&v, "pairs.informative", NULL, "");
            if (s->kind == WORLD_HIDDEN) {
                printf("walks of the shared table:");
                print_cell(&v, "shared.success", NULL, "");
            }
            if (s->kind == WORLD_SUDOKU) {
                printf("held-out prompts that a training solution fills in:");
                print_cell(&v, "held.known", NULL, "");
            }
            printf("\n");
        }
        print_arms(s, &v, job->setting);
        print_diagnostics(s, &v);
        print_judges(&v);
    }
    const gap_job *job = job_of(jobs, n_jobs, JOB_PAIRS);
    view v = {r, jobs, n_jobs, JOB_PAIRS, 0};
    if (job != NULL)
        print_sizes(s, &v, job->setting);
}

/* ---------------------------------------------------------------- pictures */

static void draw_arms(const gap_study *s, plot *p, const view *v, const gap_setting *setting)
{
    char *names[N_GAP_ARMS + 1] = {(char *)"SFT"}, key[64];
    double y[N_GAP_ARMS + 1], half[N_GAP_ARMS + 1];
    int n = 1;
    y[0] = mean_over(v, s->kind == WORLD_SUDOKU ? "sft.sampled" : "sft.hit", NULL, &half[0]);
    for (int arm = 0; arm < N_GAP_ARMS; arm++)
        if (s->arms >> arm & 1) {
            final_key(s, &setting[arm], arm, key);
            names[n] = (char *)gap_arm_key[arm];
            y[n] = mean_over(v, key, NULL, &half[n]);
            n++;
        }
    for (int i = 0; i < n; i++)
        half[i] = isnan(half[i]) ? 0 : half[i];
    plot_panel(p,
               v->kind == JOB_TUNED ? "Each arm at its best setting" : "The same setting for all",
               "", "held-out success", NULL, "[0:1]");
    plot_set(p, "set nokey; set offsets 0.5, 0.5, 0, 0");
    plot_points(p, "success", n, names, y, half);
}

static void draw_best_of(plot *p, const view *v)
{
    plot_panel(p, "Best of n of the SFT policy, by judge", "n", "held-out success", NULL, "[0:1]");
    plot_set(p, "set logscale x 2; set key top left; set offsets 0, 0, 0, 0");
    for (int j = 0; j < N_JUDGES; j++) {
        double x[N_BEST], y[N_BEST], low[N_BEST], high[N_BEST], half;
        for (int i = 0; i < N_BEST; i++) {
            char key[64];
            snprintf(key, sizeof key, "%s.best_of_%d", judge_key[j], 1 << i);
            x[i] = 1 << i;
            y[i] = mean_over(v, key, NULL, &half);
            half = isnan(half) ? 0 : half;
            low[i] = y[i] - half;
            high[i] = y[i] + half;
        }
        plot_curve(p, judge_label[j], N_BEST, x, y, low, high);
    }
}

static void draw_sizes(const gap_study *s, plot *p, const view *v, const gap_setting *setting)
{
    plot_panel(p, "Against the number of pairs", "preference pairs", "held-out success", NULL,
               "[0:1]");
    plot_set(p, "set logscale x 2; set key top left");
    for (int a = 0; a < N_CURVE_ARMS; a++) {
        double x[GAP_PAIR_SIZES], y[GAP_PAIR_SIZES], low[GAP_PAIR_SIZES], high[GAP_PAIR_SIZES],
            half;
        for (int i = 0; i < GAP_PAIR_SIZES; i++) {
            char key[64];
            view at = *v;
            at.n_pairs = gap_pair_sizes[i];
            final_key(s, &setting[curve_arm[a]], curve_arm[a], key);
            x[i] = (double)at.n_pairs;
            y[i] = mean_over(&at, key, NULL, &half);
            half = isnan(half) ? 0 : half;
            low[i] = y[i] - half;
            high[i] = y[i] + half;
        }
        plot_curve(p, gap_arm_label[curve_arm[a]], GAP_PAIR_SIZES, x, y, low, high);
    }
}

void gap_draw(const gap_study *s, const gap_results *r, const gap_job *jobs, int n_jobs)
{
    const gap_job *tuned = job_of(jobs, n_jobs, JOB_TUNED), *same = job_of(jobs, n_jobs, JOB_MAIN),
                  *sizes = job_of(jobs, n_jobs, JOB_PAIRS);
    int judges = s->kind != WORLD_SUDOKU;
    plot *p = plot_open(s->picture, 1 + judges + (tuned != NULL) + (sizes != NULL),
                        "From the same SFT policy and the same pairs");
    view v = {r, jobs, n_jobs, JOB_MAIN, 0};
    draw_arms(s, p, &v, same->setting);
    if (judges)
        draw_best_of(p, &v);
    if (tuned != NULL) {
        v.kind = JOB_TUNED;
        draw_arms(s, p, &v, tuned->setting);
    }
    if (sizes != NULL) {
        v.kind = JOB_PAIRS;
        draw_sizes(s, p, &v, sizes->setting);
    }
    if (plot_close(p) == 0)
        printf("picture: %s\n", s->picture);
}

/* ---------------------------------------------------------------- the grid */

/* Mean over the records of a grid point (rate and beta are in the record itself). */
static double grid_mean(const gap_results *grid, int arm, double rate, double beta, int64_t steps,
                        int *n)
{
    double sum = 0;
    *n = 0;
    for (int i = 0; i < grid->n; i++) {
        const gap_record *r = &grid->records[i];
        if (gap_get(r, "grid.rate") != rate || gap_get(r, "grid.beta") != beta)
            continue;
        double x = gap_get(r, "%s.sampled@%lld", gap_arm_key[arm], (long long)steps);
        if (!isnan(x)) {
            sum += x;
            ++*n;
        }
    }
    return *n > 0 ? sum / *n : NAN;
}

int gap_best_settings(const gap_study *s, const gap_results *grid, gap_setting *setting)
{
    const int64_t *steps = s->grid_steps;
    int status = 0;
    printf(
        "success on validation prompts; columns: steps %lld, %lld, %lld at each rate and beta; * "
        "the best\n%-16s",
        (long long)steps[0], (long long)steps[1], (long long)steps[2], "");
    for (int at = 0; at < GAP_RATES * GAP_BETAS; at++)
        printf(" | %5g %5g     ", gap_rates[at / GAP_BETAS], gap_betas[at % GAP_BETAS]);
    printf("\n");
    for (int arm = 0; arm < N_GAP_ARMS; arm++) {
        double best = -INFINITY, mean[GAP_RATES * GAP_BETAS * GAP_STEPS];
        int which = -1, n;
        if (!(s->arms >> arm & 1))
            continue;
        for (int i = 0; i < GAP_RATES * GAP_BETAS * GAP_STEPS; i++) {
            int at = i / GAP_STEPS;
            mean[i] = grid_mean(grid, arm, gap_rates[at / GAP_BETAS], gap_betas[at % GAP_BETAS],
                                steps[i % GAP_STEPS], &n);
            if (mean[i] > best) {
                best = mean[i];
                which = i;
            }
        }
        printf("%-16s", gap_arm_key[arm]);
        for (int i = 0; i < GAP_RATES * GAP_BETAS * GAP_STEPS; i++)
            printf("%s%s%.3f", i % GAP_STEPS == 0 ? " |" : "", i == which ? "*" : " ", mean[i]);
        printf("\n");
        if (which < 0) {
            fprintf(stderr, "the grid has no results of arm %s\n", gap_arm_key[arm]);
            status = -1;
            continue;
        }
        setting[arm] =
            (gap_setting){gap_rates[which / GAP_STEPS / GAP_BETAS],
                          gap_betas[which / GAP_STEPS % GAP_BETAS], steps[which % GAP_STEPS]};
    }
    return status;
}
