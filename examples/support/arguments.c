#include "arguments.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void __attribute__((format(printf, 2, 3), noreturn))
wrong(const char *usage, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    vfprintf(stderr, format, values);
    va_end(values);
    if (usage == NULL)
        fprintf(stderr, "\n");
    else
        fprintf(stderr, "\nusage: %s\n", usage);
    exit(2);
}

int arguments_choice(const char *choices, const char *word)
{
    size_t n = strlen(word);
    for (int i = 0; *choices != '\0'; i++) {
        size_t length = strcspn(choices, " ");
        if (length == n && n > 0 && strncmp(choices, word, n) == 0)
            return i;
        choices += length + (choices[length] == ' ');
    }
    return -1;
}

static void read_option(const argument *o, const char *text, const char *usage)
{
    char *end;
    if (text == NULL)
        wrong(usage, "%s needs a value", o->name);
    if (o->text != NULL) {
        *o->text = text;
        return;
    }
    if (o->choices != NULL) {
        int choice = arguments_choice(o->choices, text);
        if (choice < 0)
            wrong(usage, "%s is \"%s\", expected one of: %s", o->name, text, o->choices);
        *o->value = choice;
        return;
    }
    double value = strtod(text, &end);
    if (text[0] == '\0' || *end != '\0' || !(value >= o->low && value <= o->high) ||
        (o->whole && value != floor(value)))
        wrong(usage, "%s is \"%s\", expected a %snumber from %.15g to %.15g", o->name, text,
              o->whole ? "whole " : "", o->low, o->high);
    *o->value = value;
}

void arguments_read(int argc, char **argv, const char *usage, const argument *options,
                    const char **words, int least, int n)
{
    int found = 0, words_alone = 0;
    for (int i = 1; i < argc; i++) {
        if (!words_alone && strcmp(argv[i], "--") == 0) {
            words_alone = 1;
            continue;
        }
        if (!words_alone && usage != NULL && strcmp(argv[i], "--help") == 0) {
            printf("usage: %s\n", usage);
            exit(0);
        }
        if (!words_alone && argv[i][0] == '-' && argv[i][1] != '\0') {
            const argument *o = options;
            while (o->name != NULL && strcmp(o->name, argv[i]) != 0)
                o++;
            if (o->name == NULL)
                wrong(usage, "unknown option %s", argv[i]);
            if (o->low == 0 && o->high == 0 && o->text == NULL && o->choices == NULL)
                *o->value = 1;
            else {
                read_option(o, i + 1 < argc ? argv[i + 1] : NULL, usage);
                i++;
            }
            continue;
        }
        if (found == n)
            wrong(usage, "one word too many: \"%s\"", argv[i]);
        words[found++] = argv[i];
    }
    if (found < least)
        wrong(usage, "%d word%s missing", least - found, least - found == 1 ? " is" : "s are");
    while (found < n)
        words[found++] = NULL;
}
