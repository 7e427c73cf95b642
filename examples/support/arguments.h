/* Command lines of the language-model examples: words in order, and options that are numbers. */
#ifndef EXAMPLE_ARGUMENTS_H
#define EXAMPLE_ARGUMENTS_H

/* An option with a number, or a flag (low and high both 0), which becomes 1. */
typedef struct {
    const char *name; /* "--steps"; NULL ends a list */
    double *value;
    double low, high;
    int whole; /* 1: whole numbers alone */
} argument;

/* Puts the words of the command line in words[0 .. n) and the options where they belong; anything
 * that does not fit, and too few or too many words, gives the usage on stderr and exit 2. A word
 * after "--" is one even where it starts with a minus. `least` words are needed, at most n are
 * taken, the others become NULL. */
void arguments_read(int argc, char **argv, const char *usage, const argument *options,
                    const char **words, int least, int n);

#endif
