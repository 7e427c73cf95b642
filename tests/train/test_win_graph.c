/* Strong components against reachability, and the words for what is missing. */
#include "pf_test.h"
#include "base/pf_base.h"
#include "train/pf_win_graph.h"

static void load(pf_win_graph *g, prefopt_context *context, int n, int m, int (*edges)[2])
{
    OK(pf_win_graph_create(g, context, n, m));
    for (int e = 0; e < m; e++)
        pf_win_graph_add(g, edges[e][0], edges[e][1]);
    pf_win_graph_components(g);
}

START_TEST(components_are_mutual_reachability)
{
    enum { N = 9 };
    prefopt_context *context = test_context(1);
    for (uint64_t round = 0; round < 300; round++) {
        int m = (int)pf_uniform_int(1, round, 1000, 25), edges[25][2];
        bool reach[N][N] = {{false}};
        for (int i = 0; i < N; i++)
            reach[i][i] = true;
        for (int e = 0; e < m; e++) {
            edges[e][0] = (int)pf_uniform_int(1, round, 2 * (uint64_t)e, N);
            edges[e][1] = (int)pf_uniform_int(1, round, 2 * (uint64_t)e + 1, N);
            reach[edges[e][0]][edges[e][1]] = true;
        }
        for (int k = 0; k < N; k++)
            for (int i = 0; i < N; i++)
                for (int j = 0; j < N; j++)
                    reach[i][j] |= reach[i][k] && reach[k][j];
        pf_win_graph g;
        load(&g, context, N, m, edges);
        int64_t count = 0;
        for (int i = 0; i < N; i++) {
            bool first = true;
            for (int j = 0; j < N; j++) {
                ck_assert_int_eq(g.component[i] == g.component[j], reach[i][j] && reach[j][i]);
                first &= !(j < i && g.component[i] == g.component[j]);
            }
            count += first;
        }
        ck_assert_int_eq(g.n_components, count);
        pf_win_graph_destroy(&g, context);
    }
    prefopt_context_destroy(context);
}
END_TEST

/* A path of a million items: a recursive walk would need a million frames. */
START_TEST(a_long_path_needs_no_stack)
{
    enum { N = 1000000 };
    prefopt_context *context = test_context(1);
    pf_win_graph g;
    OK(pf_win_graph_create(&g, context, N, N));
    for (int32_t i = 0; i + 1 < N; i++)
        pf_win_graph_add(&g, i, i + 1);
    pf_win_graph_components(&g);
    ck_assert_int_eq(g.n_components, N);
    pf_win_graph_add(&g, N - 1, 0);
    pf_win_graph_components(&g);
    ck_assert_int_eq(g.n_components, 1);
    pf_win_graph_destroy(&g, context);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(texts_name_the_smallest_group)
{
    prefopt_context *context = test_context(1);
    pf_win_graph g;
    /* 4 only loses, 0-3 are a ring. */
    load(&g, context, 5, 5, (int[][2]){{0, 1}, {1, 2}, {2, 3}, {3, 0}, {1, 4}});
    FAILS(PREFOPT_ERR_UNBOUNDED, "item 4: never beat any", pf_win_graph_fail(&g, "comparisons"));
    ck_assert(strstr(prefopt_last_error(), "ridge") != NULL);
    pf_win_graph_destroy(&g, context);
    /* 2 and 4 only win. */
    load(&g, context, 5, 7, (int[][2]){{0, 1}, {1, 3}, {3, 0}, {2, 4}, {4, 2}, {4, 0}, {2, 3}});
    FAILS(PREFOPT_ERR_UNBOUNDED, "items 2 and 4: never lost to any",
          pf_win_graph_fail(&g, "comparisons"));
    pf_win_graph_destroy(&g, context);
    /* 1 and 3 meet each other alone. */
    load(&g, context, 5, 5, (int[][2]){{0, 2}, {2, 4}, {4, 0}, {1, 3}, {3, 1}});
    FAILS(PREFOPT_ERR_UNBOUNDED, "items 1 and 3: never compared with any",
          pf_win_graph_fail(&g, "comparisons"));
    pf_win_graph_destroy(&g, context);
    /* A list is cut. */
    OK(pf_win_graph_create(&g, context, 40, 60));
    for (int i = 0; i < 19; i++) {
        pf_win_graph_add(&g, i, (i + 1) % 19);
        pf_win_graph_add(&g, 19 + i, 19 + (i + 1) % 21);
    }
    for (int i = 19; i < 21; i++)
        pf_win_graph_add(&g, 19 + i, 19 + (i + 1) % 21);
    pf_win_graph_components(&g);
    FAILS(PREFOPT_ERR_UNBOUNDED, "items 0, 1, 2, 3, 4, 5, 6, 7 ... (19 items): never compared",
          pf_win_graph_fail(&g, "rankings"));
    pf_win_graph_destroy(&g, context);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("win_graph", components_are_mutual_reachability, a_long_path_needs_no_stack,
          texts_name_the_smallest_group)
