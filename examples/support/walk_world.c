/* Walks on a hidden graph. A prompt is [goal, start], a completion the nodes that are visited from
 * there. Every node has `degree` edges out and as many in. Making a walk that ends at the goal is
 * planning; seeing whether one does is a look at its last token. Goals have tokens of their own,
 * nodes
 * + goal: a model without absolute positions could not tell a goal from a node on the way.
 *
 * Control a: one step on the complete graph, where making is as easy as checking.
 * Control b: each prompt has a hidden walk of its own, which takes from every node the edge that a
 * table names; the reward is the share of nodes that agree with it. All prompts share the table but
 * for one node in five, picked for each prompt alone, where another edge is taken: the shared part
 * can be learnt for prompts that no pair has, the rest cannot. Checking a walk needs what making it
 * needs. Good demonstrations are the hidden walks, as people's summaries are among the data. */
#include <math.h>

#include "cli.h"
#include "gap_world.h"

enum { HORIZON = 6, HELD_OUT = 64 };
static const double own_edges = 0.2; /* control b */

typedef struct {
    int nodes, degree, horizon;
    double good;       /* share of demonstrations that reach the goal, or are the hidden walk */
    int32_t *next;     /* [2 nodes, degree] */
    uint8_t *allowed;  /* [2 nodes, 2 nodes] */
    int32_t *shared;   /* control b: [nodes], the next node by the table of all prompts */
    int32_t *followed; /* control b: [goals, starts, nodes], by each prompt's own */
    double *paths;     /* [horizon + 1, nodes, nodes]: walks of k steps from one node to another */
} graph;

static void *zeros(int64_t n, size_t size)
{
    void *array = calloc((size_t)n, size);
    if (array == NULL)
        exit(1);
    return array;
}

static void shuffle(int32_t *x, int n, gap_random *random)
{
    for (int i = 0; i < n; i++)
        x[i] = i;
    for (int i = n - 1; i > 0; i--) {
        int j = gap_below(random, i + 1);
        int32_t swap = x[i];
        x[i] = x[j];
        x[j] = swap;
    }
}

/* `degree` random permutations, drawn until no edge leads back to its node or is there twice. */
static void draw_edges(graph *g, gap_random *random)
{
    int32_t to[64];
    for (int d = 0; d < g->degree; d++) {
        int fits;
        do {
            shuffle(to, g->nodes, random);
            fits = 1;
            for (int x = 0; x < g->nodes; x++)
                fits &= to[x] != x && !g->allowed[x * 2 * g->nodes + to[x]];
        } while (!fits);
        for (int x = 0; x < g->nodes; x++) {
            g->next[x * g->degree + d] = to[x];
            g->allowed[x * 2 * g->nodes + to[x]] = 1;
        }
    }
}

static void count_paths(graph *g)
{
    int n = g->nodes;
    g->paths = doubles((int64_t)(g->horizon + 1) * n * n);
    for (int x = 0; x < n; x++)
        g->paths[x * n + x] = 1;
    for (int k = 1; k <= g->horizon; k++)
        for (int x = 0; x < n; x++)
            for (int d = 0; d < g->degree; d++)
                for (int t = 0; t < n; t++)
                    g->paths[(k * n + x) * n + t] +=
                        g->paths[((k - 1) * n + g->next[x * g->degree + d]) * n + t];
}

/* Uniform over the walks to the goal, or any walk. */
static void demonstrate(const gap_world *w, const int32_t *prompt, int32_t *completion,
                        gap_random *random)
{
    const graph *g = w->state;
    int32_t at = prompt[1];
    int good = gap_uniform(random) < g->good;
    for (int i = 0; i < g->horizon; i++) {
        const double *paths = g->paths + (int64_t)(g->horizon - 1 - i) * g->nodes * g->nodes;
        double total = 0, u = gap_uniform(random);
        for (int d = 0; d < g->degree; d++)
            total +=
                good ? paths[g->next[at * g->degree + d] * g->nodes + prompt[0] - g->nodes] : 1;
        int chosen = -1;
        for (int d = 0; d < g->degree; d++) {
            double mass =
                good ? paths[g->next[at * g->degree + d] * g->nodes + prompt[0] - g->nodes] : 1;
            if (mass > 0 && (chosen < 0 || u > 0))
                chosen = d;
            u -= mass / total;
        }
        at = completion[i] = g->next[at * g->degree + chosen];
    }
}

static double reaches_goal(const gap_world *w, const int32_t *prompt, const int32_t *completion)
{
    const graph *g = w->state;
    return completion[w->length - 1] == prompt[0] - g->nodes;
}

void walk_world_hidden(const gap_world *w, const int32_t *prompt, int own, int32_t *completion)
{
    const graph *g = w->state;
    const int32_t *next =
        own ? g->followed + ((prompt[0] - g->nodes) * g->nodes + prompt[1]) * g->nodes : g->shared;
    int32_t at = prompt[1];
    for (int i = 0; i < w->length; i++)
        at = completion[i] = next[at];
}

/* The hidden walk, or any. */
static void demonstrate_hidden(const gap_world *w, const int32_t *prompt, int32_t *completion,
                               gap_random *random)
{
    const graph *g = w->state;
    int32_t at = prompt[1];
    if (gap_uniform(random) < g->good) {
        walk_world_hidden(w, prompt, 1, completion);
        return;
    }
    for (int i = 0; i < g->horizon; i++)
        at = completion[i] = g->next[at * g->degree + gap_below(random, g->degree)];
}

static double follows_hidden(const gap_world *w, const int32_t *prompt, const int32_t *completion)
{
    int32_t hidden[HORIZON];
    int agree = 0;
    walk_world_hidden(w, prompt, 1, hidden);
    for (int i = 0; i < w->length; i++)
        agree += completion[i] == hidden[i];
    return (double)agree / w->length;
}

static void draw_hidden(graph *g, gap_random *random)
{
    int n = g->nodes, edge[64];
    g->shared = zeros(n, sizeof *g->shared);
    g->followed = zeros((int64_t)n * n * n, sizeof *g->followed);
    for (int x = 0; x < n; x++) {
        edge[x] = gap_below(random, g->degree);
        g->shared[x] = g->next[x * g->degree + edge[x]];
    }
    for (int i = 0; i < n * n * n; i++) {
        int x = i % n, other = gap_uniform(random) < own_edges;
        int d = other ? (edge[x] + 1 + gap_below(random, g->degree - 1)) % g->degree : edge[x];
        g->followed[i] = g->next[x * g->degree + d];
    }
}

static void walk_destroy(gap_world *w)
{
    graph *g = w->state;
    free(g->next);
    free(g->allowed);
    free(g->shared);
    free(g->followed);
    free(g->paths);
    free(g);
}

/* Prompts whose goal can be reached, shuffled: the first are held out. */
static void add_prompts(gap_world *w, const graph *g)
{
    gap_random random = {w->seed, STREAM_SPLIT, 0};
    int n = g->nodes * g->nodes, held = 0;
    int32_t *order = zeros(n, sizeof *order);
    shuffle(order, n, &random);
    for (int i = 0; i < n; i++) {
        int32_t goal = order[i] / g->nodes, prompt[2] = {g->nodes + goal, order[i] % g->nodes};
        if (g->paths[((int64_t)g->horizon * g->nodes + prompt[1]) * g->nodes + goal] == 0)
            continue;
        int out = held < HELD_OUT;
        held += out;
        if (out || prefopt_dataset_size(w->train) < 192)
            gap_world_add_prompt(w, out, prompt);
    }
    free(order);
}

void walk_world_create(gap_world *w, gap_kind kind, uint64_t seed)
{
    graph *g = zeros(1, sizeof *g);
    gap_random random = {seed, STREAM_GRAPH, 0};
    int one_step = kind == WORLD_ONE_STEP;
    g->nodes = 16;
    g->degree = one_step ? g->nodes : 3;
    g->horizon = one_step ? 1 : HORIZON;
    g->good = one_step ? 0.11 : 0.3;
    g->next = zeros((int64_t)2 * g->nodes * g->degree, sizeof *g->next);
    g->allowed = zeros((int64_t)4 * g->nodes * g->nodes, 1);
    for (int t = g->nodes; t < 2 * g->nodes; t++)
        for (int x = 0; x < g->nodes; x++)
            g->allowed[t * 2 * g->nodes + x] = 1;
    if (one_step)
        for (int x = 0; x < g->nodes; x++)
            for (int y = 0; y < g->nodes; y++) {
                g->next[x * g->degree + y] = y;
                g->allowed[x * 2 * g->nodes + y] = 1;
            }
    else
        draw_edges(g, &random);
    count_paths(g);
    if (kind == WORLD_HIDDEN)
        draw_hidden(g, &random);
    *w = (gap_world){.kind = kind,
                     .seed = seed,
                     .prompt_len = 2,
                     .length = g->horizon,
                     .vocab = 2 * g->nodes,
                     .degree = g->degree,
                     .next = g->next,
                     .allowed = g->allowed,
                     .scale = 3,
                     .state = g,
                     .destroy = walk_destroy,
                     .demonstrate = kind == WORLD_HIDDEN ? demonstrate_hidden : demonstrate,
                     .success = kind == WORLD_HIDDEN ? follows_hidden : reaches_goal};
    gap_world_prepare(w);
    add_prompts(w, g);
}
