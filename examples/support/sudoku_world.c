/* The lecture's own example of easy checking: fill in a 4 x 4 grid so that every row, column and
 * box holds 1 to 4. A prompt is the grid, 0 where a cell is blank, then the token 5; a completion
 * is the digits of its blanks in order. Success is the share of the twelve rows, columns and boxes
 * that are right. Demonstrations are solutions in which each digit is wrong now and then. Whole
 * solutions are held out, not only prompts. */
#include "cli.h"
#include "gap_world.h"

enum { CELLS = 16, BLANKS = 10, GRIDS = 288, TRAIN_GRIDS = 230, PROMPTS = 1000, HELD_OUT = 200 };
static const double wrong_digit = 0.15;

typedef struct {
    int8_t grid[GRIDS][CELLS];
    int n;
} grids;

static int same_unit(int a, int b)
{
    return a / 4 == b / 4 || a % 4 == b % 4 || (a / 8 == b / 8 && a % 4 / 2 == b % 4 / 2);
}

/* All grids that go on from the first `at` cells. */
static void list_grids(grids *g, int8_t *cell, int at)
{
    if (at == CELLS) {
        memcpy(g->grid[g->n++], cell, CELLS);
        return;
    }
    for (int8_t digit = 1; digit <= 4; digit++) {
        int fits = 1;
        for (int before = 0; before < at; before++)
            fits &= cell[before] != digit || !same_unit(before, at);
        cell[at] = digit;
        if (fits)
            list_grids(g, cell, at + 1);
    }
}

static int agrees(const int8_t *grid, const int32_t *prompt)
{
    for (int i = 0; i < CELLS; i++)
        if (prompt[i] != 0 && prompt[i] != grid[i])
            return 0;
    return 1;
}

/* A solution of the prompt among the training grids, with errors. */
static void demonstrate(const gap_world *w, const int32_t *prompt, int32_t *completion,
                        gap_random *random)
{
    const grids *g = w->state;
    int solution[GRIDS], n = 0, at = 0;
    for (int i = 0; i < TRAIN_GRIDS; i++)
        if (agrees(g->grid[i], prompt))
            solution[n++] = i;
    const int8_t *grid = g->grid[solution[gap_below(random, n)]];
    for (int i = 0; i < CELLS; i++)
        if (prompt[i] == 0)
            completion[at++] =
                gap_uniform(random) < wrong_digit ? 1 + gap_below(random, 4) : grid[i];
}

static double units_right(const gap_world *w, const int32_t *prompt, const int32_t *completion)
{
    int seen[12] = {0}, at = 0, right = 0;
    (void)w;
    for (int i = 0; i < CELLS; i++) {
        int32_t digit = prompt[i] != 0 ? prompt[i] : completion[at++];
        int bit = digit >= 1 && digit <= 4 ? 1 << digit : 0;
        seen[i / 4] |= bit;
        seen[4 + i % 4] |= bit;
        seen[8 + i / 8 * 2 + i % 4 / 2] |= bit;
    }
    for (int unit = 0; unit < 12; unit++)
        right += seen[unit] == 30;
    return right / 12.0;
}

static void sudoku_destroy(gap_world *w) { free(w->state); }

void sudoku_world_create(gap_world *w, uint64_t seed)
{
    grids *g = calloc(1, sizeof *g);
    gap_random random = {seed, STREAM_SPLIT, 0};
    int8_t cell[CELLS];
    if (g == NULL)
        exit(1);
    list_grids(g, cell, 0);
    for (int i = GRIDS - 1; i > 0; i--) {
        int j = gap_below(&random, i + 1);
        memcpy(cell, g->grid[i], CELLS);
        memcpy(g->grid[i], g->grid[j], CELLS);
        memcpy(g->grid[j], cell, CELLS);
    }
    *w = (gap_world){.kind = WORLD_SUDOKU,
                     .seed = seed,
                     .prompt_len = CELLS + 1,
                     .length = BLANKS,
                     .vocab = 6,
                     .scale = 12,
                     .state = g,
                     .destroy = sudoku_destroy,
                     .demonstrate = demonstrate,
                     .success = units_right};
    gap_world_prepare(w);
    for (int p = 0; p < PROMPTS + HELD_OUT; p++) {
        int held = p >= PROMPTS;
        int from = held ? TRAIN_GRIDS + gap_below(&random, GRIDS - TRAIN_GRIDS)
                        : gap_below(&random, TRAIN_GRIDS);
        int32_t prompt[CELLS + 1];
        for (int i = 0; i < CELLS; i++)
            prompt[i] = g->grid[from][i];
        for (int blanks = 0; blanks < BLANKS;) {
            int i = gap_below(&random, CELLS);
            blanks += prompt[i] != 0;
            prompt[i] = 0;
        }
        prompt[CELLS] = 5;
        gap_world_add_prompt(w, held, prompt);
    }
}
