/* Which of two arguments convinces more: a reward model on real text, judged on topics it never
 * saw.
 *
 *     convincing PAIRS.jsonl[.gz] [options]
 *
 * A linear reward on some thirty features of how a text is written (length, words, sentences,
 * marks, spelling), fitted by Bradley-Terry with a ridge. Each fold leaves two topics out, fits on
 * the others, where the ridge is chosen too, and scores the pairs of the two. Beside it: the longer
 * text wins, and the same reward on the length alone. */
#include <math.h>

#include "support/arguments.h"
#include "support/byte_texts.h"
#include "support/cli.h"
#include "support/cross_topic.h"
#include "support/intervals.h"
#include "support/plot.h"
#include "support/text_features.h"

static const char usage[] =
    "convincing PAIRS.jsonl[.gz] [options]\n"
    "  Each line has \"prompt\", \"chosen\" and \"rejected\"; the first line of the prompt is the "
    "topic.\n"
    "  Made for UKPConvArg1Strict (pairs of arguments), but any pairs with four topics or more "
    "do.\n"
    "  --hold-out N   topics left out at a time, 1 or 2 (default 2; 1 where topics are dealt)\n"
    "  --deal N       where there are more topics than that, they are dealt into N groups (default "
    "8)\n"
    "  --seed S       of the dealing and of the bootstrap\n"
    "  --plot FILE    accuracy by topic, .svg or .png\n"
    "  --features     the features with their weights";

/* ---------------------------------------------------------------- numbers by topic */

typedef struct {
    double n, longer, length_fit, full, length_ll, full_ll; /* sums over pairs */
} topic_row;

static double longer(const topic_pairs *p, int64_t i)
{
    double a = p->length[p->chosen[i]], b = p->length[p->rejected[i]];
    return a > b ? 1 : a == b ? 0.5 : 0;
}

static void add(topic_row *to, const topic_row *row)
{
    to->n += row->n;
    to->longer += row->longer;
    to->length_fit += row->length_fit;
    to->full += row->full;
    to->length_ll += row->length_ll;
    to->full_ll += row->full_ll;
}

/* Mean over topics, each once, of a share or a difference, with its t interval. */
static void print_by_topic(const char *name, int64_t n, const double *value)
{
    double half, mean = mean_of((int)n, value, &half);
    printf("  %-40s %7.4f  [%.4f, %.4f]\n", name, mean, mean - half, mean + half);
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Accuracy over pairs, with topics drawn anew: what it might have been with other topics. */
static void print_bootstrap(int64_t n_topics, const topic_row *row, uint64_t seed)
{
    enum { DRAWS = 10000 };
    static double full[DRAWS], gain[DRAWS];
    for (int64_t d = 0; d < DRAWS; d++) {
        topic_row sum = {0};
        for (int64_t k = 0; k < n_topics; k++) {
            double u;
            CALL(prefopt_random_uniform(seed, 1 + (uint64_t)d, (uint64_t)k, 1, &u));
            add(&sum, &row[(int64_t)(u * (double)n_topics)]);
        }
        full[d] = sum.full / sum.n;
        gain[d] = (sum.full - sum.longer) / sum.n;
    }
    qsort(full, DRAWS, sizeof *full, compare_doubles);
    qsort(gain, DRAWS, sizeof *gain, compare_doubles);
    topic_row all = {0};
    for (int64_t t = 0; t < n_topics; t++)
        add(&all, &row[t]);
    printf("  %-40s %7.4f  [%.4f, %.4f]\n", "accuracy over all pairs", all.full / all.n,
           full[DRAWS / 40], full[DRAWS - DRAWS / 40]);
    printf("  %-40s %+7.4f  [%+.4f, %+.4f]\n", "more than the longer one",
           (all.full - all.longer) / all.n, gain[DRAWS / 40], gain[DRAWS - DRAWS / 40]);
}

/* ---------------------------------------------------------------- what is said */

static void print_table(int64_t n, char *const *names, const topic_row *row)
{
    topic_row all = {0};
    printf("\n%-46s %6s  %7s %7s %7s   %s\n", "held-out topic", "pairs", "longer", "length",
           "reward", "log-likelihood a pair: length, reward");
    for (int64_t t = 0; t <= n; t++) {
        const topic_row *r = t < n ? &row[t] : &all;
        printf("%-46.46s %6.0f  %7.3f %7.3f %7.3f   %.4f  %.4f\n", t < n ? names[t] : "all pairs",
               r->n, r->longer / r->n, r->length_fit / r->n, r->full / r->n, r->length_ll / r->n,
               r->full_ll / r->n);
        if (t < n)
            add(&all, &row[t]);
    }
}

static void print_intervals(int64_t n, const topic_row *row, uint64_t seed)
{
    double *reward = doubles(n), *plain = doubles(n), *gain = doubles(n), *nats = doubles(n);
    for (int64_t t = 0; t < n; t++) {
        reward[t] = row[t].full / row[t].n;
        plain[t] = row[t].longer / row[t].n;
        gain[t] = reward[t] - plain[t];
        nats[t] = (row[t].full_ll - row[t].length_ll) / row[t].n;
    }
    printf("\n95 %% intervals; topics count once each, t with %lld degrees of freedom\n",
           (long long)n - 1);
    print_by_topic("accuracy of the reward", n, reward);
    print_by_topic("accuracy of the longer one", n, plain);
    print_by_topic("reward minus longer, paired", n, gain);
    print_by_topic("nats a pair over length alone, paired", n, nats);
    printf("pairs count once each, topics drawn anew (10,000 times)\n");
    print_bootstrap(n, row, seed);
    free(reward);
    free(plain);
    free(gain);
    free(nats);
}

static void print_ridges(const cross_topic *c)
{
    double low = INFINITY, high = 0;
    for (int64_t f = 0; f < c->n_folds; f++) {
        low = fmin(low, c->ridge[f]);
        high = fmax(high, c->ridge[f]);
    }
    printf("%lld folds; ridge chosen in each: %g to %g\n", (long long)c->n_folds, low, high);
}

static void print_features(const topic_pairs *p, double ridge)
{
    double theta[TEXT_FEATURES];
    topic_pairs_fit(p, TEXT_FEATURES, ridge, theta);
    printf("\nfitted to all pairs, ridge %g: nats for one standard deviation\n", ridge);
    for (int k = 0; k < TEXT_FEATURES; k++) /* largest first; what was printed becomes NaN */
        for (int best = -1, j = 0; j <= TEXT_FEATURES; j++) {
            if (j < TEXT_FEATURES) {
                if (!isnan(theta[j]) && (best < 0 || fabs(theta[j]) > fabs(theta[best])))
                    best = j;
                continue;
            }
            printf("  %+7.3f  %s\n", theta[best], text_feature_names[best]);
            theta[best] = NAN;
        }
}

/* What stands below the picture: without a leading "Debate: " or the like, cut to a few words. */
static char *short_name(const char *name)
{
    enum { SHOWN = 18 };
    const char *colon = strstr(name, ": ");
    if (colon != NULL && colon - name < 10)
        name = colon + 2;
    char *copy = strndup(name, SHOWN);
    if (copy != NULL && strlen(name) > SHOWN) {
        char *space = strrchr(copy, ' ');
        if (space != NULL)
            *space = '\0';
    }
    return copy;
}

static void draw(const char *path, int64_t n, char *const *full_names, const topic_row *row)
{
    char **names = calloc((size_t)n, sizeof *names);
    for (int64_t t = 0; names != NULL && t < n; t++)
        names[t] = short_name(full_names[t]);
    plot *picture = plot_open(path, 1, "Held-out topics: which argument convinces more");
    double *y = doubles(n), *error = doubles(n);
    char range[64]; /* half a place beside the first and the last */
    snprintf(range, sizeof range, "[-0.5:%g]", (double)n - 0.5);
    plot_panel(picture, "", "", "accuracy", range, "[0.5:1]");
    for (int series = 0; series < 2; series++) {
        for (int64_t t = 0; t < n; t++) {
            y[t] = (series == 0 ? row[t].longer : row[t].full) / row[t].n;
            error[t] = 1.96 * sqrt(y[t] * (1 - y[t]) / row[t].n);
        }
        plot_points(picture, series == 0 ? "the longer one" : "linear reward", n, names, y, error);
    }
    if (plot_close(picture) == 0 && picture != NULL)
        printf("\npicture: %s (bars: 95 %% of a share of so many pairs)\n", path);
    for (int64_t t = 0; names != NULL && t < n; t++)
        free(names[t]);
    free(names);
    free(y);
    free(error);
}

int main(int argc, char **argv)
{
    double hold_out = 0, deal = 8, seed = 1, features = 0;
    const char *words[1], *plot_path = NULL;
    const argument options[] = {
        {"--hold-out", &hold_out, 1, 2, .whole = 1}, {"--deal", &deal, 4, 1000, .whole = 1},
        {"--seed", &seed, 0, 1e15, .whole = 1},      {"--plot", NULL, 0, 0, .text = &plot_path},
        {"--features", &features, 0, 0, .whole = 0}, {0}};
    arguments_read(argc, argv, usage, options, words, 1, 1);
    prefopt_context *context;
    topic_pairs p;
    cross_topic by_length, full;
    CALL(prefopt_context_create(&context, NULL));
    topic_pairs_read(&p, context, words[0], (int64_t)deal, (uint64_t)seed);
    int dealt = p.n_groups < p.n_topics;
    int held = hold_out > 0 ? (int)hold_out : dealt ? 1 : 2;
    printf("%lld pairs of %lld texts, %lld topics%s\n", (long long)p.n_pairs, (long long)p.n_texts,
           (long long)p.n_topics, dealt ? " dealt into groups" : "");
    printf("%s; %d of %lld left out at a time\n", dealt ? "folds by group" : "folds by topic", held,
           (long long)p.n_groups);
    cross_topic_run(&by_length, &p, 1, held);
    cross_topic_run(&full, &p, p.n_features, held);
    print_ridges(&full);

    int64_t n = p.n_groups;
    topic_row *row = calloc((size_t)n, sizeof *row);
    char **names = calloc((size_t)n, sizeof *names);
    for (int64_t i = 0; row != NULL && i < p.n_pairs; i++)
        add(&row[p.group[i]], &(topic_row){1, longer(&p, i), by_length.right[i], full.right[i],
                                           by_length.log_likelihood[i], full.log_likelihood[i]});
    for (int64_t g = 0; names != NULL && g < n; g++) {
        char number[32];
        snprintf(number, sizeof number, "group %lld", (long long)g + 1);
        names[g] = strdup(dealt ? number : p.topic_names[g]);
    }
    if (row == NULL || names == NULL) {
        fprintf(stderr, "no memory\n");
        return 1;
    }
    print_table(n, names, row);
    print_intervals(n, row, (uint64_t)seed);
    if (features != 0)
        print_features(&p, full.ridge[0]);
    if (plot_path != NULL)
        draw(plot_path, n, names, row);
    for (int64_t g = 0; g < n; g++)
        free(names[g]);
    free(names);
    free(row);
    cross_topic_free(&by_length);
    cross_topic_free(&full);
    topic_pairs_free(&p);
    prefopt_context_destroy(context);
    return 0;
}
