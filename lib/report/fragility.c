/* Fragility of a leaderboard: the fewest comparisons whose removal changes who is first.
 *
 * With g the score of one comparison at the fit x and K minus the second derivatives there, leaving
 * the comparison out moves x by -K^-1 g to first order. So it takes v . g, v = K^-1 (e_leader -
 * e_rival), off the gap between leader and rival: its influence (Broderick, Giordano and Meager,
 * arXiv 2011.14999). For each rival:
 *
 *     1. Rank the rows by influence; count how many comparisons from the top close the gap.
 *     2. Take out half of that number (one, when few are left) and refit. If the leader is no
 *        longer first, that is confirmed: go to 3. Else, near the end, see whether another one
 *        would do; rank anew at this fit, and repeat: as comparisons go, those that stay count
 *        more, and the order changes.
 *     3. Bisect within the last step for the fewest of it that flip. Then put back, one at a time,
 *        what the last fit says can be spared, as long as the refit agrees.
 *
 * A refit without a finite optimum confirms nothing, as there then is no leader: the step is
 * halved, and a single comparison that does this is left in for good.
 */
#include <stdlib.h>

#include "report/pf_report.h"
#include "train/pf_pair_likelihood.h"
#include "train/pf_strengths_check.h"

enum { ALL_RIVALS = 200, NEAREST_RIVALS = 20, MAX_STEPS = 400, MAX_BANNED = 64 };

/* Others to try for the last of so many comparisons that are needed; in tables of few, always. */
enum { LAST_TRIES = 8, LAST_NEEDED = 3, FEW = 64 };

/* Rows times items up to which every item is tried as a rival. */
static const double MUCH_WORK = 2e7;

/* Strengths closer than this are a draw: refits differ by about as much from rounding. */
static const double DRAW = 1e-9;

typedef struct {
    double influence; /* of one comparison */
    int64_t row;
} ranked;

typedef struct {
    prefopt_context *context;
    prefopt_comparisons data; /* its weights are `weight` */
    prefopt_strengths_options options;
    const double *given; /* the caller's weights, or NULL */
    int64_t n, dim, leader;
    double total, budget;
    double *weight;      /* n: what is left of each row */
    double *base;        /* n: `weight` before the step that is being tried */
    double *best_weight; /* n: of the best removal so far */
    uint8_t *banned;     /* n: the rival's search has found that it disconnects */
    ranked *order;       /* n */
    double *start;       /* dim: the full fit */
    double *x;           /* dim: the last good refit */
    double *trial;       /* dim */
    double *v;           /* dim: K^-1 (e_leader - e_rival) at the last good refit */
    int64_t rival;
    prefopt_fragility out; /* the best so far */
} search;

/* ---- refits */

enum outcome { NOT_FLIPPED, FLIPPED, NO_FIT };

static int64_t first_item(int64_t n, const double *x)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        best = x[i] > x[best] ? i : best;
    return best;
}

/* Maximises from s->trial over the weights as they are; v is solved for when the rival is known.
 * quiet: UNBOUNDED and slow convergence are *fitted = false. */
static int32_t fit(search *s, pf_likelihood *l, bool quiet, bool *fitted)
{
    pf_win_graph graph = {0};
    pf_newton newton = {0};
    int64_t iterations;
    double norm, *scratch = pf_alloc(s->context, l->n_items, sizeof *scratch);
    int32_t status = scratch == NULL ? PREFOPT_ERR_MEMORY : PREFOPT_OK;
    *fitted = false;
    if (status == PREFOPT_OK)
        status = pf_win_graph_create(&graph, s->context, l->n_items, l->ops->max_edges(l));
    if (status == PREFOPT_OK) {
        status = pf_strengths_exist(l, s->options.ridge, &graph, scratch, quiet);
        pf_win_graph_destroy(&graph, s->context);
    }
    pf_free(s->context, scratch);
    if (status == PREFOPT_ERR_UNBOUNDED && quiet)
        return PREFOPT_OK;
    PF_TRY(status);
    PF_TRY(pf_newton_create(&newton, l, s->options.ridge, s->options.tolerance));
    *fitted = pf_newton_fit(&newton, s->trial, &iterations, &norm);
    if (*fitted && s->rival >= 0) {
        memset(newton.gradient, 0, (size_t)l->dim * sizeof *newton.gradient);
        newton.gradient[s->leader] = 1;
        newton.gradient[s->rival] = -1;
        pf_newton_solve(&newton, newton.gradient, 1e-8);
        memcpy(s->v, newton.step, (size_t)l->dim * sizeof *s->v);
    }
    pf_newton_destroy(&newton);
    if (!*fitted && !quiet)
        return pf_fail(PREFOPT_ERR_NUMERIC,
                       "the gradient norm stopped at %.3g after %lld iterations, expected at most "
                       "tolerance = %g",
                       norm, (long long)iterations, s->options.tolerance);
    return PREFOPT_OK;
}

static int32_t fit_full(search *s)
{
    pf_likelihood *l;
    bool fitted;
    PF_TRY(pf_pair_likelihood_create(&l, s->context, &s->data, s->options.tie_model, false));
    pf_newton_start(l, s->trial);
    int32_t status = fit(s, l, false, &fitted);
    l->ops->destroy(l);
    memcpy(s->start, s->trial, (size_t)s->dim * sizeof *s->start);
    return status;
}

/* Fits to the weights as they are, from s->x. Good fits go to s->x and s->v. */
static int32_t evaluate(search *s, enum outcome *outcome)
{
    pf_likelihood *l;
    bool fitted;
    PF_TRY(pf_pair_likelihood_create(&l, s->context, &s->data, s->options.tie_model, false));
    memcpy(s->trial, s->x, (size_t)s->dim * sizeof *s->trial);
    int32_t status = fit(s, l, true, &fitted);
    l->ops->destroy(l);
    PF_TRY(status);
    *outcome = NO_FIT;
    if (!fitted)
        return PREFOPT_OK;
    int64_t first = first_item(s->data.n_items, s->trial);
    memcpy(s->x, s->trial, (size_t)s->dim * sizeof *s->x);
    *outcome = s->x[first] - s->x[s->leader] > DRAW ? FLIPPED : NOT_FLIPPED;
    return PREFOPT_OK;
}

static int32_t refit(search *s, enum outcome *outcome)
{
    s->out.n_refits++;
    return evaluate(s, outcome);
}

/* ---- influence */

/* What leaving out one comparison of row i takes off the gap. */
static double influence(const search *s, int64_t i)
{
    int32_t a = s->data.first[i], b = s->data.second[i];
    double d = s->x[a] - s->x[b], label = s->data.label == NULL ? 1 : s->data.label[i];
    if (s->options.tie_model == PREFOPT_TIE_NONE)
        return (s->v[a] - s->v[b]) * (label * pf_sigmoid(-d) - (1 - label) * pf_sigmoid(d));
    double t = s->x[s->dim - 1], vt = s->v[s->dim - 1];
    pf_outcome_scores g = pf_tie_scores_of(s->options.tie_model, d, t);
    double gd = label == 1 ? g.win_d : label == 0 ? g.lose_d : g.tie_d;
    double gt = label == 1 ? g.win_t : label == 0 ? g.lose_t : g.tie_t;
    return (s->v[a] - s->v[b]) * gd + vt * gt;
}

static int by_influence(const void *a, const void *b)
{
    const ranked *p = a, *q = b;
    if (p->influence != q->influence)
        return p->influence > q->influence ? -1 : 1;
    return p->row < q->row ? -1 : 1;
}

/* Rows that narrow the gap, most influential first. */
static int64_t rank_rows(search *s)
{
    int64_t m = 0;
    for (int64_t i = 0; i < s->n; i++) {
        if (!(s->weight[i] > 0) || s->banned[i])
            continue;
        double narrows = influence(s, i);
        if (narrows > 0)
            s->order[m++] = (ranked){narrows, i};
    }
    qsort(s->order, (size_t)m, sizeof *s->order, by_influence);
    return m;
}

/* Comparisons of a row, the last of which may be a fraction. */
static int64_t units(double weight)
{
    double up = ceil(weight);
    return up < 1e15 ? (int64_t)up : (int64_t)1e15;
}

/* How many comparisons from the top of the ranking close `gap`; -1: not even all of them. *all: how
 * many there are. */
static int64_t units_to_close(const search *s, int64_t m, double gap, int64_t *all)
{
    int64_t count = 0, needed = -1;
    for (int64_t k = 0; k < m; k++) {
        double weight = s->weight[s->order[k].row], by = s->order[k].influence;
        if (needed < 0 && gap < by * weight)
            needed = count + units(fmax(gap / by, 0x1p-40));
        gap -= by * weight;
        count += units(weight);
    }
    *all = count;
    return needed;
}

/* weight = base less `count` comparisons from the top of the ranking. */
static void take(search *s, int64_t count)
{
    memcpy(s->weight, s->base, (size_t)s->n * sizeof *s->weight);
    for (int64_t k = 0; count > 0; k++) {
        int64_t row = s->order[k].row, here = units(s->base[row]);
        s->weight[row] = count >= here ? 0 : s->base[row] - (double)count;
        count -= here;
    }
}

static double weight_of(const search *s, int64_t i) { return s->given == NULL ? 1 : s->given[i]; }

static double removed(const search *s)
{
    pf_sum sum = {0, 0};
    for (int64_t i = 0; i < s->n; i++)
        pf_sum_add(&sum, weight_of(s, i) - s->weight[i]);
    return pf_sum_value(&sum);
}

/* ---- one rival */

/* The leader is no longer first after `flip` of the ranking, where the weights and s->x are, and is
 * after `keep`: narrows down to neighbours, and leaves weights and s->x at the flip. */
static int32_t bisect(search *s, int64_t keep, int64_t flip)
{
    enum outcome outcome = FLIPPED;
    while (flip - keep > 1) {
        int64_t middle = keep + (flip - keep) / 2;
        take(s, middle);
        PF_TRY(refit(s, &outcome));
        if (outcome == FLIPPED)
            flip = middle;
        else
            keep = middle;
    }
    if (outcome == FLIPPED)
        return PREFOPT_OK;
    take(s, flip);
    return refit(s, &outcome);
}

/* Puts back comparisons that the flip does not need. The weights and s->x are at a flip. */
static int32_t put_back(search *s)
{
    for (int step = 0; step < MAX_STEPS; step++) {
        int64_t spare = -1;
        double least = INFINITY, gap = s->x[s->leader] - s->x[s->rival];
        for (int64_t i = 0; i < s->n; i++)
            if (s->weight[i] < weight_of(s, i) && influence(s, i) < least) {
                least = influence(s, i);
                spare = i;
            }
        if (spare < 0 || gap + least >= -DRAW)
            return PREFOPT_OK;
        enum outcome outcome;
        double was = s->weight[spare], next = floor(was) + 1;
        s->weight[spare] = fmin(next, weight_of(s, spare));
        PF_TRY(refit(s, &outcome));
        if (outcome != FLIPPED) {
            s->weight[spare] = was;
            return refit(s, &outcome);
        }
    }
    return PREFOPT_OK;
}

/* Keeps the removal that the weights and s->x stand for, if it is smaller than the best. */
static void keep_best(search *s)
{
    double n_removed = removed(s);
    if (s->out.found && n_removed >= s->out.n_removed)
        return;
    int64_t rival = first_item(s->data.n_items, s->x);
    s->out.found = 1;
    s->out.rival = rival;
    s->out.n_removed = n_removed;
    s->out.gap_before = s->start[s->leader] - s->start[rival];
    s->out.gap_after = s->x[s->leader] - s->x[rival];
    memcpy(s->best_weight, s->weight, (size_t)s->n * sizeof *s->weight);
}

/* Removals of at most this are of interest. */
static double limit(const search *s)
{
    return s->out.found ? fmin(s->budget, s->out.n_removed) : s->budget;
}

/* First order is coarse for the last comparison: tries one of each of the next rows of the ranking
 * that differ in influence, then goes back to the first. */
static int32_t try_others(search *s, int64_t m, enum outcome *outcome)
{
    int tries = 0;
    for (int64_t k = 1; k < m && tries < LAST_TRIES; k++) {
        int64_t row = s->order[k].row;
        if (s->order[k].influence == s->order[k - 1].influence)
            continue;
        tries++;
        memcpy(s->weight, s->base, (size_t)s->n * sizeof *s->weight);
        s->weight[row] = fmax(s->base[row] - 1, 0);
        PF_TRY(refit(s, outcome));
        if (*outcome == FLIPPED)
            return PREFOPT_OK;
    }
    take(s, 1);
    return refit(s, outcome);
}

/* Searches until a flip is found or the limit reached; *flipped says which. */
static int32_t approach(search *s, bool *flipped)
{
    int64_t banned = 0;
    *flipped = false;
    for (int step = 0; step < MAX_STEPS; step++) {
        int64_t m = rank_rows(s), all;
        int64_t needed = units_to_close(s, m, s->x[s->leader] - s->x[s->rival] + DRAW, &all);
        double room = floor(limit(s) - removed(s) + 1e-9);
        if (all == 0 || room < 1)
            return PREFOPT_OK;
        if (needed < 0)
            needed = all;
        int64_t count = needed <= 8 || all <= FEW ? 1 : needed / 2;
        count = (double)count > room ? (int64_t)room : count;
        memcpy(s->base, s->weight, (size_t)s->n * sizeof *s->base);
        enum outcome outcome = NO_FIT;
        for (; count > 0 && outcome == NO_FIT; count /= 2) {
            take(s, count);
            PF_TRY(refit(s, &outcome));
            if (outcome == FLIPPED) {
                *flipped = true;
                return bisect(s, 0, count);
            }
            if (count == 1 && (needed <= LAST_NEEDED || all <= FEW))
                PF_TRY(try_others(s, m, &outcome));
            if (outcome == FLIPPED) {
                *flipped = true;
                return PREFOPT_OK;
            }
        }
        if (outcome == NO_FIT) { /* not even one */
            memcpy(s->weight, s->base, (size_t)s->n * sizeof *s->base);
            s->banned[s->order[0].row] = 1;
            if (++banned > MAX_BANNED)
                return PREFOPT_OK;
        }
    }
    return PREFOPT_OK;
}

static void back_to_full(search *s)
{
    for (int64_t i = 0; i < s->n; i++)
        s->weight[i] = weight_of(s, i);
    memset(s->banned, 0, (size_t)s->n);
    memcpy(s->x, s->start, (size_t)s->dim * sizeof *s->x);
}

/* v at the full fit, and from it the first-order number of comparisons; INFINITY when all do not
 * suffice to first order. */
static int32_t predict(search *s, double *predicted)
{
    enum outcome outcome;
    int64_t all;
    back_to_full(s);
    PF_TRY(evaluate(s, &outcome));
    int64_t m = rank_rows(s);
    int64_t needed = units_to_close(s, m, s->x[s->leader] - s->x[s->rival] + DRAW, &all);
    *predicted = needed < 0 ? INFINITY : (double)needed;
    return PREFOPT_OK;
}

static int32_t try_rival(search *s)
{
    double predicted;
    bool flipped;
    PF_TRY(predict(s, &predicted));
    /* First order counts too many where the data are few: what is left counts more as others go. */
    if (isfinite(predicted) && predicted > 2 * limit(s) + 16)
        return PREFOPT_OK;
    PF_TRY(approach(s, &flipped));
    if (!flipped)
        return PREFOPT_OK;
    PF_TRY(put_back(s));
    keep_best(s);
    return PREFOPT_OK;
}

/* ---- all rivals */

/* The rivals, strongest first: all of few, the nearest of many. */
static int64_t list_rivals(search *s, int64_t *rivals)
{
    int64_t n = s->data.n_items, m = 0, most = n - 1;
    if (n > ALL_RIVALS || (double)n * (double)s->n > MUCH_WORK)
        most = most < NEAREST_RIVALS ? most : NEAREST_RIVALS;
    for (int64_t i = 0; i < n; i++) {
        if (i == s->leader || (m == most && !(s->start[i] > s->start[rivals[m - 1]])))
            continue;
        int64_t at = m < most ? m++ : m - 1;
        for (; at > 0 && s->start[i] > s->start[rivals[at - 1]]; at--)
            rivals[at] = rivals[at - 1];
        rivals[at] = i;
    }
    return m;
}

static int32_t run(search *s, double *removed_rows)
{
    int64_t rivals[ALL_RIVALS];
    back_to_full(s);
    PF_TRY(fit_full(s));
    s->leader = first_item(s->data.n_items, s->start);
    int64_t m = list_rivals(s, rivals);
    s->out.leader = s->leader;
    s->out.rival = m > 0 ? rivals[0] : -1;
    s->out.gap_before = s->out.gap_after = m > 0 ? s->start[s->leader] - s->start[rivals[0]] : 0;
    for (int64_t k = 0; k < m; k++) {
        s->rival = rivals[k];
        PF_TRY(try_rival(s));
    }
    if (s->out.found)
        s->out.share = s->out.n_removed / s->total;
    for (int64_t i = 0; i < s->n && removed_rows != NULL; i++)
        removed_rows[i] = s->out.found ? weight_of(s, i) - s->best_weight[i] : 0;
    return PREFOPT_OK;
}

static int32_t allocate_and_run(search *s, double *removed_rows)
{
    prefopt_context *c = s->context;
    int32_t status = PREFOPT_ERR_MEMORY;
    double *rows = pf_alloc(c, 3 * s->n, sizeof *rows);
    double *fits = pf_alloc(c, 4 * s->dim, sizeof *fits);
    if (rows != NULL && fits != NULL &&
        (s->banned = pf_alloc(c, s->n, sizeof *s->banned)) != NULL &&
        (s->order = pf_alloc(c, s->n, sizeof *s->order)) != NULL) {
        s->data.weight = s->weight = rows;
        s->base = rows + s->n;
        s->best_weight = rows + 2 * s->n;
        s->start = fits;
        s->x = fits + s->dim;
        s->trial = fits + 2 * s->dim;
        s->v = fits + 3 * s->dim;
        status = run(s, removed_rows);
    }
    pf_free(c, rows);
    pf_free(c, fits);
    pf_free(c, s->banned);
    pf_free(c, s->order);
    return status;
}

/* ---- the report */

static int32_t check_options(prefopt_strengths_options *own,
                             const prefopt_strengths_options *options, int64_t n_items)
{
    prefopt_strengths_options defaults;
    PF_TRY(prefopt_strengths_options_init(&defaults, sizeof defaults));
    *own = defaults;
    if (options != NULL)
        PF_TRY(pf_struct_read(own, sizeof *own, sizeof *own, options, "prefopt_strengths_options"));
    PF_TRY(pf_strengths_check_options(own, &defaults, n_items, false));
    if (own->covariance != defaults.covariance)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "covariance is %d, but no standard errors are made here: expected its "
                       "default %d",
                       own->covariance, defaults.covariance);
    return PREFOPT_OK;
}

int32_t prefopt_report_fragility(prefopt_fragility *out, double *removed, prefopt_context *context,
                                 const prefopt_comparisons *data,
                                 const prefopt_strengths_options *options, double max_share)
{
    PF_REQUIRE(out);
    PF_REQUIRE(context);
    PF_REQUIRE(data);
    search s = {.context = context, .rival = -1, .out = {.struct_size = sizeof s.out}};
    PF_TRY(pf_struct_check_out(out, sizeof s.out, "prefopt_fragility"));
    s.data.struct_size = sizeof s.data;
    PF_TRY(pf_struct_read(&s.data, sizeof s.data, sizeof s.data, data, "prefopt_comparisons"));
    PF_TRY(check_options(&s.options, options, s.data.n_items));
    PF_TRY(pf_strengths_check_comparisons(&s.data, s.options.tie_model));
    if (isnan(max_share))
        return pf_fail(PREFOPT_ERR_NUMERIC, "max_share is NaN, expected a number in [0, 1]");
    if (!(max_share >= 0 && max_share <= 1))
        return pf_fail(PREFOPT_ERR_ARGUMENT, "max_share is %g, expected a number in [0, 1]",
                       max_share);
    s.n = s.data.n;
    s.dim = s.data.n_items + (s.options.tie_model != PREFOPT_TIE_NONE);
    s.given = s.data.weight;
    for (int64_t i = 0; i < s.n; i++)
        s.total += weight_of(&s, i);
    s.budget = max_share * s.total;
    PF_TRY(allocate_and_run(&s, removed));
    pf_struct_write(out, &s.out, sizeof s.out);
    return PREFOPT_OK;
}
