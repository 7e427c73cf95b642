/* Command lines of the language-model examples: words in order, and options: numbers, flags, texts,
 * or one of some words. */
#ifndef EXAMPLE_ARGUMENTS_H
#define EXAMPLE_ARGUMENTS_H

/* An option with a number, or a flag (low and high both 0), which becomes 1. */
typedef struct {
    const char *name; /* "--steps"; NULL ends a list */
    double *value;
    double low, high;
    int whole;           /* 1: whole numbers alone */
    const char **text;   /* not NULL: the option's text as it is goes there; value is not used */
    const char *choices; /* not NULL: words with a space between each two; value becomes the place
                            of the one that is given, from 0 */
} argument;

/* Puts the words of the command line in words[0 .. n) and the options where they belong; anything
 * that does not fit, and too few or too many words, gives the usage on stderr (usage NULL: one line
 * that says what is wrong, alone) and exit 2; --help gives it on stdout (usage NULL: it is an
 * option like any other) and exit 0. A word after "--" is one even where it starts with a minus.
 * `least` words are needed, at most n are taken, the others become NULL. */
void arguments_read(int argc, char **argv, const char *usage, const argument *options,
                    const char **words, int least, int n);

/* The place of a word among choices, from 0; -1: it is none of them. */
int arguments_choice(const char *choices, const char *word);

#endif
