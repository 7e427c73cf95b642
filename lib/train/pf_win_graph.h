/* Internal: the graph of who beat whom, its strongly connected components, and the text that says
 * which items keep a fit from being finite. */
#ifndef PF_WIN_GRAPH_H
#define PF_WIN_GRAPH_H

#include "base/pf_base.h"

/* Edges winner -> loser by source (compressed rows), and the room its walks need. */
typedef struct {
    int64_t n_items, n_edges, max_edges;
    const char *const *names; /* n_items, for the text of a failure; NULL: numbers */
    int32_t *from, *to;       /* max_edges: the caller fills n_edges of them */
    int64_t *start;           /* n_items + 1 */
    int32_t *target;          /* max_edges */
    int32_t *component;       /* n_items: 0 .. n_components - 1, in reverse topological order */
    int64_t n_components;
    int64_t *low, *next;         /* n_items: walk state */
    int32_t *stack, *call_stack; /* n_items */
} pf_win_graph;

/* Room for n_items and max_edges. On failure nothing is kept. */
int32_t pf_win_graph_create(pf_win_graph *graph, prefopt_context *context, int64_t n_items,
                            int64_t max_edges);
void pf_win_graph_destroy(pf_win_graph *graph, prefopt_context *context);

static inline void pf_win_graph_add(pf_win_graph *graph, int32_t winner, int32_t loser)
{
    graph->from[graph->n_edges] = winner;
    graph->to[graph->n_edges++] = loser;
}

/* Sets component and n_components from the edges; neither allocates nor recurses (Tarjan 1972). */
void pf_win_graph_components(pf_win_graph *graph);

/* After pf_win_graph_components found more than one: fails with UNBOUNDED and a text that names the
 * smallest group of items that was never compared with the rest, never lost to it, or never beat
 * it. */
int32_t pf_win_graph_fail(pf_win_graph *graph, const char *unit);

#endif
