/* Strong connectivity of the win graph: a finite optimum exists if and only if, however the items
 * are split in two groups, some item of each group beat one of the other (Ford 1957; Hunter 2004,
 * Annals of Statistics 32, assumption 1). */
#include <stdio.h>

#include "train/pf_win_graph.h"

int32_t pf_win_graph_create(pf_win_graph *graph, prefopt_context *context, int64_t n_items,
                            int64_t max_edges)
{
    memset(graph, 0, sizeof *graph);
    graph->n_items = n_items;
    graph->max_edges = max_edges;
    /* One block for three arrays: few page faults. */
    if ((graph->from = pf_alloc(context, max_edges, 3 * sizeof *graph->from)) == NULL ||
        (graph->start = pf_alloc(context, n_items + 1, sizeof *graph->start)) == NULL ||
        (graph->component = pf_alloc(context, n_items, sizeof *graph->component)) == NULL ||
        (graph->low = pf_alloc(context, n_items, sizeof *graph->low)) == NULL ||
        (graph->next = pf_alloc(context, n_items, sizeof *graph->next)) == NULL ||
        (graph->stack = pf_alloc(context, n_items, sizeof *graph->stack)) == NULL ||
        (graph->call_stack = pf_alloc(context, n_items, sizeof *graph->call_stack)) == NULL) {
        pf_win_graph_destroy(graph, context);
        return PREFOPT_ERR_MEMORY;
    }
    graph->to = graph->from + max_edges;
    graph->target = graph->to + max_edges;
    return PREFOPT_OK;
}

void pf_win_graph_destroy(pf_win_graph *graph, prefopt_context *context)
{
    pf_free(context, graph->from);
    pf_free(context, graph->start);
    pf_free(context, graph->component);
    pf_free(context, graph->low);
    pf_free(context, graph->next);
    pf_free(context, graph->stack);
    pf_free(context, graph->call_stack);
    memset(graph, 0, sizeof *graph);
}

/* Edges into compressed rows by a counting sort. */
static void build_rows(pf_win_graph *graph)
{
    int64_t n = graph->n_items, *start = graph->start;
    memset(start, 0, (size_t)(n + 1) * sizeof *start);
    for (int64_t e = 0; e < graph->n_edges; e++)
        start[graph->from[e] + 1]++;
    for (int64_t i = 0; i < n; i++) {
        start[i + 1] += start[i];
        graph->next[i] = start[i];
    }
    for (int64_t e = 0; e < graph->n_edges; e++)
        graph->target[graph->next[graph->from[e]]++] = graph->to[e];
}

/* One depth-first walk from root. low[v] is 0 before v is seen; then the smallest visit number
 * reachable from v so far; and above every visit number once v's component is known. */
static void walk(pf_win_graph *graph, int32_t root, int64_t *visits, int64_t *on_stack)
{
    int64_t done = graph->n_items + 1, depth = 0;
    int64_t *low = graph->low, *next = graph->next;
    graph->call_stack[depth++] = root;
    low[root] = ++*visits;
    /* component holds the visit number until the component is known. */
    graph->component[root] = (int32_t)*visits;
    graph->stack[(*on_stack)++] = root;
    while (depth > 0) {
        int32_t v = graph->call_stack[depth - 1];
        /* With every item seen and v linked back to the first, its other edges tell nothing. */
        bool settled = low[v] == 1 && *visits == graph->n_items;
        if (next[v] < graph->start[v + 1] && !settled) {
            int32_t w = graph->target[next[v]];
            if (low[w] == 0) {
                graph->call_stack[depth++] = w;
                low[w] = ++*visits;
                graph->component[w] = (int32_t)*visits;
                graph->stack[(*on_stack)++] = w;
                continue; /* comes back to this edge with low[w] known */
            }
            if (low[w] < low[v])
                low[v] = low[w];
            next[v]++;
            continue;
        }
        depth--;
        if (low[v] != graph->component[v])
            continue;
        int32_t w;
        do {
            w = graph->stack[--*on_stack];
            low[w] = done;
            graph->component[w] = (int32_t)graph->n_components;
        } while (w != v);
        graph->n_components++;
    }
}

void pf_win_graph_components(pf_win_graph *graph)
{
    build_rows(graph);
    int64_t visits = 0, on_stack = 0;
    graph->n_components = 0;
    for (int64_t i = 0; i < graph->n_items; i++) {
        graph->low[i] = 0;
        graph->next[i] = graph->start[i];
    }
    for (int64_t i = 0; i < graph->n_items; i++)
        if (graph->low[i] == 0)
            walk(graph, (int32_t)i, &visits, &on_stack);
}

/* group[i]: the smallest item that i is linked to by edges in either direction (union-find with
 * path halving); returns the number of groups. */
static int64_t linked_groups(const pf_win_graph *graph, int32_t *group)
{
    int64_t n = graph->n_items, groups = n;
    for (int64_t i = 0; i < n; i++)
        group[i] = (int32_t)i;
    for (int64_t e = 0; e < graph->n_edges; e++) {
        int32_t a = graph->from[e], b = graph->to[e];
        while (group[a] != a)
            a = group[a] = group[group[a]];
        while (group[b] != b)
            b = group[b] = group[group[b]];
        if (a == b)
            continue;
        groups--;
        if (a < b)
            group[b] = a;
        else
            group[a] = b;
    }
    for (int64_t i = 0; i < n; i++)
        group[i] = group[group[i]]; /* parents are smaller, so theirs is a root already */
    return groups;
}

/* `item 3`, `items 1, 2 and 5`, `items 0, 1, 2, 3, 4, 5, 6, 7 ... (120 items)`; with names `item
 * "Ann"`, and so on. A text that does not fit is cut. */
static void name_group(const pf_win_graph *graph, const int32_t *group, int32_t wanted, char *text,
                       size_t size)
{
    enum { NAMED = 8 };
    int64_t n = graph->n_items, count = 0, named = 0;
    for (int64_t i = 0; i < n; i++)
        count += group[i] == wanted;
    size_t used = (size_t)snprintf(text, size, count == 1 ? "item" : "items");
    for (int64_t i = 0; i < n && named < NAMED && used < size; i++) {
        if (group[i] != wanted)
            continue;
        const char *comma = named == 0 ? " " : named == count - 1 ? " and " : ", ";
        if (graph->names != NULL)
            used += (size_t)snprintf(text + used, size - used, "%s\"%s\"", comma, graph->names[i]);
        else
            used += (size_t)snprintf(text + used, size - used, "%s%lld", comma, (long long)i);
        named++;
    }
    if (count > named && used < size)
        snprintf(text + used, size - used, " ... (%lld items)", (long long)count);
}

/* The smallest group with flag[group] == 0; -1 if none. sizes is scratch, n_groups long. */
static int64_t smallest(const int32_t *group, int64_t n, const int64_t *flag, int64_t *sizes,
                        int64_t n_groups)
{
    int64_t best = -1;
    memset(sizes, 0, (size_t)n_groups * sizeof *sizes);
    for (int64_t i = 0; i < n; i++)
        sizes[group[i]]++;
    for (int64_t g = 0; g < n_groups; g++)
        if (sizes[g] > 0 && (flag == NULL || flag[g] == 0) && (best < 0 || sizes[g] < sizes[best]))
            best = g;
    return best;
}

int32_t pf_win_graph_fail(pf_win_graph *graph, const char *unit)
{
    char names[400];
    int64_t n = graph->n_items, *entered = graph->low, *sizes = graph->next;
    int64_t groups = linked_groups(graph, graph->stack);
    if (groups > 1) {
        int64_t g = smallest(graph->stack, n, NULL, sizes, n);
        name_group(graph, graph->stack, (int32_t)g, names, sizeof names);
        return pf_fail(PREFOPT_ERR_UNBOUNDED,
                       "no finite optimum: %s: never compared with any of the other items (the %s "
                       "fall into %lld groups with nothing between them); compare them, leave them "
                       "out, or set ridge > 0",
                       names, unit, (long long)groups);
    }
    const int32_t *c = graph->component;
    memset(entered, 0, (size_t)graph->n_components * sizeof *entered);
    for (int64_t e = 0; e < graph->n_edges; e++)
        if (c[graph->from[e]] != c[graph->to[e]])
            entered[c[graph->to[e]]] = 1;
    int64_t top = smallest(c, n, entered, sizes, graph->n_components);
    int64_t top_size = sizes[top];
    memset(entered, 0, (size_t)graph->n_components * sizeof *entered);
    for (int64_t e = 0; e < graph->n_edges; e++)
        if (c[graph->from[e]] != c[graph->to[e]])
            entered[c[graph->from[e]]] = 1;
    int64_t bottom = smallest(c, n, entered, sizes, graph->n_components);
    int never_lose = top_size <= sizes[bottom];
    name_group(graph, c, (int32_t)(never_lose ? top : bottom), names, sizeof names);
    return pf_fail(PREFOPT_ERR_UNBOUNDED,
                   "no finite optimum: %s: never %s any of the other items (the win graph has %lld "
                   "strongly connected components, expected 1); set ridge > 0",
                   names, never_lose ? "lost to" : "beat", (long long)graph->n_components);
}
