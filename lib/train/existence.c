/* Whether the optimum of a comparison loss is finite, decided from the data before any fit.
 *
 * Where each sequence has a score of its own (tabular rewards, and the log-ratios of a tabular
 * policy), the win graph of each prompt must be strongly connected (Ford 1957). Where scores are
 * linear in the parameters, the differences of features must not be separable (Albert and Anderson
 * 1984): see separation.c. A tie parameter t is one more coordinate: a direction (u, t) hurts no
 * outcome if every win has u_winner - u_loser >= max(0, 2 t) and every tie |u_a - u_b| <= 2 t (for
 * Rao-Kupper t in place of 2 t). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "train/pf_train.h"
#include "train/pf_win_graph.h"

typedef struct {
    int64_t winner, loser; /* distinct sequences */
    int64_t row;
    bool tie;
} win;

typedef struct {
    prefopt_trainer *trainer;
    const char *way_out;
    int64_t n;
    win *wins;
} evidence;

static void add(evidence *e, int64_t winner, int64_t loser, int64_t row, bool tie)
{
    e->wins[e->n++] = (win){.winner = winner, .loser = loser, .row = row, .tie = tie};
}

static void add_pair(evidence *e, int64_t row, const double *ref, double smoothing)
{
    const pf_rows *rows = e->trainer->rows;
    int64_t a = rows->sequence[rows->first[row]], b = rows->sequence[rows->first[row] + 1];
    if (rows->weight[row] == 0 || a == b)
        return;
    if (ref != NULL && (isinf(ref[a]) || isinf(ref[b])))
        return;
    double label = rows->label[row];
    bool tie = e->trainer->has_extra && label == 0.5;
    if (label > 0 || smoothing > 0)
        add(e, a, b, row, tie);
    if ((label < 1 || smoothing > 0) && !tie)
        add(e, b, a, row, tie);
}

static int by_items(const void *left, const void *right)
{
    const win *a = left, *b = right;
    if (a->winner != b->winner)
        return a->winner < b->winner ? -1 : 1;
    if (a->loser != b->loser)
        return a->loser < b->loser ? -1 : 1;
    if (a->tie != b->tie)
        return a->tie ? 1 : -1;
    return a->row < b->row ? -1 : a->row > b->row;
}

/* Every comparison with weight, each kind of outcome between two sequences once. */
static int32_t collect(evidence *e, const double *ref, double smoothing)
{
    const pf_rows *rows = e->trainer->rows;
    e->wins = pf_alloc(e->trainer->context, 2 * rows->n_slots, sizeof *e->wins);
    if (e->wins == NULL)
        return PREFOPT_ERR_MEMORY;
    for (int64_t i = 0; i < rows->n; i++) {
        if (rows->kind[i] == PREFOPT_ROW_PAIR)
            add_pair(e, i, ref, smoothing);
        else if (rows->weight[i] > 0)
            for (int64_t s = rows->first[i]; s + 1 < rows->first[i + 1]; s++)
                add(e, rows->sequence[s], rows->sequence[s + 1], i, false);
    }
    qsort(e->wins, (size_t)e->n, sizeof *e->wins, by_items);
    int64_t kept = 0;
    for (int64_t i = 0; i < e->n; i++)
        if (kept == 0 || e->wins[i].winner != e->wins[kept - 1].winner ||
            e->wins[i].loser != e->wins[kept - 1].loser || e->wins[i].tie != e->wins[kept - 1].tie)
            e->wins[kept++] = e->wins[i];
    e->n = kept;
    return PREFOPT_OK;
}

static int32_t tie_parameter(const evidence *e)
{
    int64_t ties = 0;
    for (int64_t i = 0; i < e->n; i++)
        ties += e->wins[i].tie;
    if (ties == 0)
        return pf_fail(PREFOPT_ERR_UNBOUNDED,
                       "no finite optimum: the tie parameter falls for ever, for no pair is a tie "
                       "(label 0.5); use tie_model PREFOPT_TIE_NONE");
    if (ties == e->n)
        return pf_fail(PREFOPT_ERR_UNBOUNDED,
                       "no finite optimum: the tie parameter grows for ever, for every pair is a "
                       "tie (label 0.5); use tie_model PREFOPT_TIE_NONE");
    return PREFOPT_OK;
}

/* ---- scores of their own */

/* What joins a component of the win graph to the rest of its prompt. */
typedef struct {
    int64_t size, group;
    bool wins, loses; /* against the rest */
} component;

/* Names the smallest component that the rest cannot reach, or that cannot reach the rest; between
 * equal ones the last, as components come losers first. */
static int32_t fail_graph(const evidence *e, const pf_win_graph *graph, component *components)
{
    const pf_rows *rows = e->trainer->rows;
    for (int64_t i = 0; i < e->n; i++) {
        int32_t a = graph->component[e->wins[i].winner], b = graph->component[e->wins[i].loser];
        components[a].wins |= a != b;
        components[b].loses |= a != b;
    }
    int64_t best = -1;
    for (int64_t c = 0; c < graph->n_components; c++) {
        const component *at = &components[c];
        if (at->group < 0 || (at->wins && at->loses))
            continue;
        if (best < 0 || at->size <= components[best].size)
            best = c;
    }
    const component *at = &components[best];
    const char *what = at->wins    ? "never lose to the prompt's others"
                       : at->loses ? "never win against the prompt's others"
                                   : "are never compared with the prompt's others";
    enum { SHOWN = 3 };
    char text[PF_SEQUENCE_TEXT], list[SHOWN * (PF_SEQUENCE_TEXT + 8)] = "";
    int64_t shown = 0;
    size_t length = 0;
    for (int64_t i = 0; i < rows->n_distinct && shown < SHOWN; i++)
        if (graph->component[i] == best) {
            length += (size_t)snprintf(list + length, sizeof list - length, "%s(%s)",
                                       shown == 0 ? "" : ", ", pf_rows_text(rows, i, text));
            shown++;
        }
    if (at->size > shown)
        snprintf(list + length, sizeof list - length, " and %lld more",
                 (long long)(at->size - shown));
    return pf_fail(PREFOPT_ERR_UNBOUNDED, "no finite optimum: %s %s; %s", list, what, e->way_out);
}

static int32_t check_graph(const evidence *e, pf_win_graph *graph)
{
    const pf_rows *rows = e->trainer->rows;
    prefopt_context *context = e->trainer->context;
    for (int64_t i = 0; i < e->n; i++) {
        pf_win_graph_add(graph, (int32_t)e->wins[i].winner, (int32_t)e->wins[i].loser);
        if (e->wins[i].tie)
            pf_win_graph_add(graph, (int32_t)e->wins[i].loser, (int32_t)e->wins[i].winner);
    }
    pf_win_graph_components(graph);
    component *components = pf_calloc(context, graph->n_components, sizeof *components);
    int64_t *in_group = pf_calloc(context, rows->n_groups, sizeof *in_group);
    int32_t status = PREFOPT_ERR_MEMORY;
    if (components != NULL && in_group != NULL) {
        bool whole = true;
        for (int64_t c = 0; c < graph->n_components; c++)
            components[c].group = -1;
        for (int64_t i = 0; i < e->n; i++)
            components[graph->component[e->wins[i].winner]].group =
                components[graph->component[e->wins[i].loser]].group = 0;
        for (int64_t i = 0; i < rows->n_distinct; i++) {
            component *at = &components[graph->component[i]];
            if (at->group >= 0 && at->size++ == 0) {
                at->group = rows->group[i];
                whole &= ++in_group[rows->group[i]] == 1;
            }
        }
        for (int64_t c = 0; c < graph->n_components; c++)
            if (components[c].group >= 0 && in_group[components[c].group] == 1)
                components[c].group = -1; /* all of its prompt: nothing is wrong with it */
        status = whole ? PREFOPT_OK : fail_graph(e, graph, components);
    }
    pf_free(context, components);
    pf_free(context, in_group);
    return status;
}

/* With ties: do levels u exist with every win a full step up and every tie at most one step? They
 * do unless relaxing the steps (Bellman and Ford) goes on for ever. */
static int32_t check_levels(const evidence *e)
{
    int64_t n = e->trainer->rows->n_distinct;
    double *u = pf_calloc(e->trainer->context, n, sizeof *u);
    if (u == NULL)
        return PREFOPT_ERR_MEMORY;
    bool moved = true;
    for (int64_t round = 0; round <= n && moved; round++) {
        moved = false;
        for (int64_t i = 0; i < e->n; i++) {
            double *a = &u[e->wins[i].winner], *b = &u[e->wins[i].loser];
            double step = e->wins[i].tie ? 1 : -1;
            if (*b > *a + step) {
                *b = *a + step;
                moved = true;
            }
            if (e->wins[i].tie && *a > *b + 1) {
                *a = *b + 1;
                moved = true;
            }
        }
    }
    pf_free(e->trainer->context, u);
    if (moved)
        return PREFOPT_OK;
    return pf_fail(PREFOPT_ERR_UNBOUNDED,
                   "no finite optimum: the tie parameter and the scores grow together, for the "
                   "sequences have levels with every win a step up and every tie at most one step; "
                   "%s",
                   e->way_out);
}

static int32_t exists_free(const evidence *e)
{
    const pf_rows *rows = e->trainer->rows;
    if (rows->n_distinct > INT32_MAX)
        return pf_fail(PREFOPT_ERR_UNSUPPORTED, "%lld distinct sequences, at most %d can be",
                       (long long)rows->n_distinct, INT32_MAX);
    pf_win_graph graph;
    PF_TRY(pf_win_graph_create(&graph, e->trainer->context, rows->n_distinct, 2 * e->n));
    int32_t status = check_graph(e, &graph);
    pf_win_graph_destroy(&graph, e->trainer->context);
    if (status == PREFOPT_OK && e->trainer->has_extra)
        status = check_levels(e);
    return status;
}

/* ---- linear scores */

/* The gradient of a linear score is its row of features, whatever the model keeps them in. */
static int32_t features_of(const evidence *e, int64_t n_features, double *features)
{
    const pf_trained *model = &e->trainer->model;
    const prefopt_sequences *view = pf_sequence_map_view(e->trainer->rows->map);
    const double one = 1;
    for (int64_t i = 0; i < view->n; i++) {
        prefopt_sequences part = pf_sequences_part(view, i, 1);
        PF_TRY(pf_trained_zero_grad(model));
        PF_TRY(pf_trained_backward(model, &part, &one));
        memcpy(features + i * n_features, e->trainer->optimiser.slots[0].grad,
               (size_t)n_features * sizeof *features);
    }
    return PREFOPT_OK;
}

/* One row of the separation problem, scaled to length 1: sign * (phi_winner - phi_loser), and the
 * tie coordinate. False when it is 0. */
static bool put_row(const evidence *e, const win *w, const double *features, int64_t n_features,
                    double sign, double tie, double *row)
{
    double length = 0;
    const double *a = features + w->winner * n_features, *b = features + w->loser * n_features;
    for (int64_t i = 0; i < n_features; i++) {
        double size = fmax(fabs(a[i]), fabs(b[i])), d = a[i] - b[i];
        row[i] = fabs(d) <= 1e-14 * size ? 0 : sign * d; /* equal but for rounding */
        length += row[i] * row[i];
    }
    if (e->trainer->has_extra)
        row[n_features] = tie;
    length = sqrt(length + tie * tie);
    for (int64_t i = 0; length > 0 && i < n_features + e->trainer->has_extra; i++)
        row[i] /= length;
    return length > 0;
}

static int32_t fail_linear(const evidence *e, int64_t m, int64_t k, const double *x,
                           const int64_t *source, const double *direction)
{
    int64_t best = 0, separated = 0;
    double high = 0, length = 0;
    for (int64_t i = 0; i < k; i++)
        length += direction[i] * direction[i];
    for (int64_t j = 0; j < m; j++) {
        double along = 0;
        for (int64_t i = 0; i < k; i++)
            along += x[j * k + i] * direction[i];
        separated += along > 1e-7 * sqrt(length);
        if (along > high) {
            high = along;
            best = j;
        }
    }
    const win *w = &e->wins[source[best]];
    char winner[PF_SEQUENCE_TEXT], loser[PF_SEQUENCE_TEXT];
    return pf_fail(PREFOPT_ERR_UNBOUNDED,
                   "no finite optimum: the features separate the comparisons: a direction of the "
                   "parameters makes none less likely and %lld of %lld ever more, most of all row "
                   "%lld, (%s) %s (%s); %s",
                   (long long)separated, (long long)m, (long long)w->row,
                   pf_rows_text(e->trainer->rows, w->winner, winner), w->tie ? "tied with" : "over",
                   pf_rows_text(e->trainer->rows, w->loser, loser), e->way_out);
}

static int32_t decide_linear(const evidence *e, int64_t n_features, double *features, double *x,
                             int64_t *source, double *direction)
{
    int64_t m = 0, k = n_features + e->trainer->has_extra;
    PF_TRY(features_of(e, n_features, features));
    for (int64_t i = 0; i < e->n; i++) {
        const win *w = &e->wins[i];
        source[m] = i;
        m += put_row(e, w, features, n_features, 1, w->tie ? 1 : 0, x + m * k);
        if (!e->trainer->has_extra)
            continue;
        source[m] = i;
        m += put_row(e, w, features, n_features, w->tie ? -1 : 1, w->tie ? 1 : -1, x + m * k);
    }
    bool found = false;
    PF_TRY(pf_separation(e->trainer->context, m, k, x, &found, direction));
    return found ? fail_linear(e, m, k, x, source, direction) : PREFOPT_OK;
}

static int32_t exists_linear(const evidence *e)
{
    prefopt_context *context = e->trainer->context;
    int64_t n_features = e->trainer->optimiser.slots[0].n, k = n_features + 1;
    int64_t n_numbers, n_rows = 2 * e->n + 2;
    if (!pf_mul(e->trainer->rows->n_distinct, k, &n_numbers) || !pf_mul(n_rows, k, &n_numbers))
        return pf_fail(PREFOPT_ERR_MEMORY, "a size overflows: %lld features", (long long)k);
    double *features = pf_alloc(context, e->trainer->rows->n_distinct * k, sizeof *features);
    double *x = pf_alloc(context, n_numbers, sizeof *x);
    double *direction = pf_alloc(context, k, sizeof *direction);
    int64_t *source = pf_alloc(context, n_rows, sizeof *source);
    int32_t status = PREFOPT_ERR_MEMORY;
    if (features != NULL && x != NULL && direction != NULL && source != NULL)
        status = decide_linear(e, n_features, features, x, source, direction);
    pf_free(context, features);
    pf_free(context, x);
    pf_free(context, direction);
    pf_free(context, source);
    return status;
}

int32_t pf_exists(prefopt_trainer *trainer, const double *ref, double smoothing, bool prior,
                  const char *way_out)
{
    evidence e = {.trainer = trainer, .way_out = way_out};
    int32_t scores = pf_trained_class(&trainer->model);
    int32_t status = collect(&e, ref, smoothing);
    if (status == PREFOPT_OK && trainer->has_extra)
        status = tie_parameter(&e);
    if (status == PREFOPT_OK && !prior && scores == PF_SCORES_FREE)
        status = exists_free(&e);
    if (status == PREFOPT_OK && !prior && scores == PF_SCORES_LINEAR)
        status = exists_linear(&e);
    pf_free(trainer->context, e.wins);
    return status;
}
