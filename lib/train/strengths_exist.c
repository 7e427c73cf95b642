/* Whether a likelihood of strengths has a finite maximum, from the outcomes alone, before any fit.
 *
 * Without ties: the win graph must be strongly connected. A ridge makes the strengths finite
 * always.
 *
 * With a tie parameter t a direction (strengths u, t) along which no outcome gets less likely makes
 * every win satisfy u_winner - u_loser >= max(0, 2t) and every tie |u_a - u_b| <= 2t (Davidson; for
 * Rao-Kupper t in place of 2t). So t < 0 needs that there are no ties, t = 0 a win graph, ties
 * counted both ways, that is not strongly connected, and t > 0 levels with every win a full step up
 * and every tie at most one step. */
#include "train/pf_strengths.h"

static int32_t unbounded(bool quiet, const char *text)
{
    return quiet ? PREFOPT_ERR_UNBOUNDED : pf_fail(PREFOPT_ERR_UNBOUNDED, "%s", text);
}

static int32_t tie_parameter_exists(const pf_likelihood *l, bool quiet)
{
    double decided, tied;
    pf_pair_likelihood_outcomes(l, &decided, &tied);
    if (!(tied > 0))
        return unbounded(quiet, l->tie_model == PREFOPT_TIE_DAVIDSON
                                    ? "no finite optimum: log_tie goes to -inf, for no comparison "
                                      "is a tie (label 0.5); use tie_model PREFOPT_TIE_NONE"
                                    : "no optimum inside: log_tie goes to its bound 0, for no "
                                      "comparison is a tie (label 0.5); use tie_model "
                                      "PREFOPT_TIE_NONE");
    if (!(decided > 0))
        return unbounded(quiet, "no finite optimum: log_tie goes to +inf, for every comparison is "
                                "a tie (label 0.5); use tie_model PREFOPT_TIE_NONE");
    return PREFOPT_OK;
}

int32_t pf_strengths_exist(const pf_likelihood *l, double ridge, pf_win_graph *graph,
                           double *scratch, bool quiet)
{
    if (l->tie_model != PREFOPT_TIE_NONE)
        PF_TRY(tie_parameter_exists(l, quiet));
    if (ridge > 0)
        return PREFOPT_OK;
    graph->n_edges = 0;
    l->ops->edges(l, graph);
    pf_win_graph_components(graph);
    if (graph->n_components > 1)
        return quiet ? PREFOPT_ERR_UNBOUNDED : pf_win_graph_fail(graph, l->ops->unit);
    if (l->tie_model != PREFOPT_TIE_NONE && pf_pair_likelihood_ties_diverge(l, scratch))
        return unbounded(quiet, "no finite optimum: log_tie and the strengths grow together, for "
                                "the items have levels with every win a step up and every tie at "
                                "most one step; set ridge > 0");
    return PREFOPT_OK;
}
