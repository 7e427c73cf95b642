/* Coverage: what the data say nothing about (lecture 22.3). */
#include "report/pf_report.h"

/* log pi - log pi_ref of a policy that equals the reference is 0 but for rounding. */
static const double RATIO_SLACK = 1e-9;

typedef struct {
    pf_exact_space space;
    double beta;
    double *support; /* one a completion: weight of the rows that hold it */
    double *optimal; /* space.n */
    int64_t *order;  /* space.n: uncovered completions of a prompt */
    prefopt_coverage out;
    pf_sum ref_mass, policy_mass, optimal_mass, chi_square;
} work;

/* One prompt's terms; mu = support / total. */
static int32_t add_prompt(work *w, int64_t x)
{
    const pf_exact_space *s = &w->space;
    int64_t n = s->n, at = x * n;
    const double *logp = s->logp + at, *ref = s->ref_logp + at, *support = w->support + at;
    double share = pf_exact_share(s, x);
    pf_sum total = {0, 0}, ref_mass = {0, 0}, mass = {0, 0}, optimal_mass = {0, 0}, chi = {0, 0};
    if (s->score != NULL)
        PF_TRY(pf_exact_soft_optimal(s, x, w->beta, w->optimal, NULL));
    for (int64_t y = 0; y < n; y++)
        pf_sum_add(&total, support[y]);
    for (int64_t y = 0; y < n; y++) {
        double pi = exp(logp[y]), mu = support[y] / pf_sum_value(&total);
        if (logp[y] > -INFINITY)
            w->out.max_ratio = fmax(w->out.max_ratio, mu > 0 ? pi / mu : INFINITY);
        if (support[y] > 0) {
            pf_sum_add(&chi, (pi - mu) * (pi - mu) / mu);
            continue;
        }
        w->out.n_uncovered++;
        pf_sum_add(&ref_mass, exp(ref[y]));
        pf_sum_add(&mass, pi);
        if (s->score != NULL)
            pf_sum_add(&optimal_mass, exp(w->optimal[y]));
        if (logp[y] == -INFINITY)
            continue;
        pf_sum_add(&chi, INFINITY);
        w->out.worst_policy_mass = fmax(w->out.worst_policy_mass, pi);
        if (logp[y] - ref[y] > RATIO_SLACK) /* +INFINITY where the reference has none */
            w->out.at_risk = 1;
    }
    pf_sum_add(&w->ref_mass, share * pf_sum_value(&ref_mass));
    pf_sum_add(&w->policy_mass, share * pf_sum_value(&mass));
    pf_sum_add(&w->optimal_mass, share * pf_sum_value(&optimal_mass));
    pf_sum_add(&w->chi_square, share * pf_sum_value(&chi));
    w->out.n_prompts++;
    w->out.n_completions += n;
    return PREFOPT_OK;
}

/* ---- the uncovered completions as a dataset */

/* Insertion into a heap of the lightest: sorts order[0 .. m) heaviest first, and completions that
 * weigh the same by their number. */
static bool heavier(const double *logp, int64_t a, int64_t b)
{
    return logp[a] > logp[b] || (logp[a] == logp[b] && a < b);
}

static void sift_down(const double *logp, int64_t *order, int64_t at, int64_t m)
{
    for (int64_t child; (child = 2 * at + 1) < m; at = child) {
        if (child + 1 < m && heavier(logp, order[child], order[child + 1]))
            child++;
        if (heavier(logp, order[child], order[at]))
            return;
        int64_t swap = order[at];
        order[at] = order[child];
        order[child] = swap;
    }
}

static void sort_heaviest_first(const double *logp, int64_t *order, int64_t m)
{
    for (int64_t at = m / 2 - 1; at >= 0; at--)
        sift_down(logp, order, at, m);
    for (int64_t last = m - 1; last > 0; last--) {
        int64_t swap = order[0];
        order[0] = order[last];
        order[last] = swap;
        sift_down(logp, order, 0, last);
    }
}

typedef struct {
    int32_t *tokens;
    int64_t *offsets;                /* m + 1 */
    double *logp, *ref_logp, *score; /* m */
} buffers;

/* A row for the m uncovered completions of prompt x. */
static int32_t append_row(const work *w, int64_t x, int64_t m, buffers *b, prefopt_dataset *to)
{
    const pf_exact_space *s = &w->space;
    prefopt_row row, prompt = {.struct_size = sizeof prompt};
    int64_t n_tokens = 0;
    for (int64_t k = 0; k < m; k++) {
        int64_t at = x * s->n + w->order[k], len;
        const int32_t *completion = pf_completion(&s->view, at, &len);
        memcpy(b->tokens + n_tokens, completion, (size_t)len * sizeof *completion);
        b->offsets[k] = n_tokens;
        b->offsets[k + 1] = n_tokens += len;
        b->logp[k] = s->logp[at];
        b->ref_logp[k] = s->ref_logp[at];
        /* The column of scores is finite; "never" is left unknown. */
        b->score[k] = s->score != NULL && s->score[at] > -INFINITY ? s->score[at] : NAN;
    }
    PF_TRY(prefopt_dataset_row(s->prompts, x, &prompt));
    PF_TRY(prefopt_row_init(&row, sizeof row));
    row.kind = PREFOPT_ROW_COMPLETIONS;
    row.prompt = prompt.prompt;
    row.prompt_len = prompt.prompt_len;
    row.n_completions = m;
    row.completions = b->tokens;
    row.completion_offsets = b->offsets;
    row.logp = b->logp;
    row.ref_logp = b->ref_logp;
    row.score = s->score == NULL ? NULL : b->score;
    return prefopt_dataset_append(to, &row);
}

static int32_t append_rows(work *w, buffers *b, prefopt_dataset *to)
{
    const pf_exact_space *s = &w->space;
    for (int64_t x = 0; x < s->n_prompts; x++) {
        int64_t m = 0;
        for (int64_t y = 0; y < s->n && s->prompt_weight[x] > 0; y++)
            if (!(w->support[x * s->n + y] > 0))
                w->order[m++] = y;
        if (m == 0)
            continue;
        sort_heaviest_first(s->logp + x * s->n, w->order, m);
        PF_TRY(append_row(w, x, m, b, to));
    }
    return PREFOPT_OK;
}

static int32_t list_uncovered(work *w, prefopt_context *context, prefopt_dataset **out)
{
    const pf_exact_space *s = &w->space;
    prefopt_context *own = s->context;
    /* The prompts share one list of completions, so the first prompt's tokens are enough room. */
    int64_t n_tokens = s->view.offsets[s->n] - s->view.offsets[0];
    buffers b = {pf_alloc(own, n_tokens, sizeof *b.tokens),
                 pf_alloc(own, s->n + 1, sizeof *b.offsets), pf_alloc(own, s->n, sizeof *b.logp),
                 pf_alloc(own, s->n, sizeof *b.ref_logp), pf_alloc(own, s->n, sizeof *b.score)};
    prefopt_dataset *made = NULL;
    int32_t status = PREFOPT_ERR_MEMORY;
    if (b.tokens != NULL && b.offsets != NULL && b.logp != NULL && b.ref_logp != NULL &&
        b.score != NULL)
        status = prefopt_dataset_create(&made, context);
    if (status == PREFOPT_OK)
        status = append_rows(w, &b, made);
    pf_free(own, b.tokens);
    pf_free(own, b.offsets);
    pf_free(own, b.logp);
    pf_free(own, b.ref_logp);
    pf_free(own, b.score);
    if (status == PREFOPT_OK)
        *out = made;
    else
        prefopt_dataset_destroy(made);
    return status;
}

/* ---- the report */

static int32_t run(work *w, prefopt_dataset **uncovered, const prefopt_dataset *data)
{
    const pf_exact_space *s = &w->space;
    if ((w->support = pf_alloc(s->context, s->view.n, sizeof *w->support)) == NULL ||
        (w->optimal = pf_alloc(s->context, s->n, sizeof *w->optimal)) == NULL ||
        (w->order = pf_alloc(s->context, s->n, sizeof *w->order)) == NULL)
        return PREFOPT_ERR_MEMORY;
    PF_TRY(pf_exact_support(s, data, w->support));
    for (int64_t x = 0; x < s->n_prompts; x++)
        if (s->prompt_weight[x] > 0)
            PF_TRY(add_prompt(w, x));
    w->out.uncovered_ref_mass = pf_sum_value(&w->ref_mass);
    w->out.uncovered_policy_mass = pf_sum_value(&w->policy_mass);
    w->out.uncovered_soft_optimal_mass = s->score == NULL ? NAN : pf_sum_value(&w->optimal_mass);
    w->out.chi_square = pf_sum_value(&w->chi_square);
    return uncovered == NULL ? PREFOPT_OK : list_uncovered(w, data->context, uncovered);
}

static int32_t check_kinds(const prefopt_dataset *data)
{
    for (int64_t i = 0; i < data->n_rows; i++)
        if (data->kind[i] == PREFOPT_ROW_PROMPT)
            return pf_fail(PREFOPT_ERR_ARGUMENT,
                           "data: row %lld is a PROMPT without completions, expected PAIR, RANKING "
                           "or COMPLETIONS rows",
                           (long long)i);
    return PREFOPT_OK;
}

int32_t prefopt_report_coverage(prefopt_coverage *out, prefopt_dataset **uncovered,
                                const prefopt_dataset *data, prefopt_policy *policy,
                                const prefopt_reference *reference, prefopt_reward *reward,
                                double beta)
{
    PF_REQUIRE(out);
    PF_REQUIRE(data);
    PF_REQUIRE(policy);
    PF_REQUIRE(reference);
    work w = {.beta = beta, .out = {.struct_size = sizeof w.out}};
    PF_TRY(pf_struct_check_out(out, sizeof w.out, "prefopt_coverage"));
    if (reward != NULL)
        PF_TRY(pf_report_check_beta(beta));
    else if (beta != 0)
        return pf_fail(isnan(beta) ? PREFOPT_ERR_NUMERIC : PREFOPT_ERR_ARGUMENT,
                       "beta is %g but reward is NULL and nothing uses it: expected 0", beta);
    PF_TRY(check_kinds(data));
    PF_TRY(pf_exact_space_create(&w.space, data, policy, reference, reward));
    int32_t status = run(&w, uncovered, data);
    pf_free(w.space.context, w.support);
    pf_free(w.space.context, w.optimal);
    pf_free(w.space.context, w.order);
    pf_exact_space_destroy(&w.space);
    if (status == PREFOPT_OK)
        pf_struct_write(out, &w.out, sizeof w.out);
    return status;
}
