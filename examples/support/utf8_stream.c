#include "utf8_stream.h"

/* Length of the character that starts with this byte; 0: none does. */
static int length_of(unsigned char first)
{
    if (first < 0x80)
        return 1;
    return first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
}

/* Whether `next` may follow the first i bytes: the second byte rules out overlong forms,
 * surrogates and what lies beyond U+10FFFF. */
static int goes_on(const unsigned char *held, int i, unsigned char next)
{
    unsigned char low = 0x80, high = 0xbf;
    if (i == 1) {
        low = held[0] == 0xe0 ? 0xa0 : held[0] == 0xf0 ? 0x90 : low;
        high = held[0] == 0xed ? 0x9f : held[0] == 0xf4 ? 0x8f : high;
    }
    return next >= low && next <= high;
}

void utf8_end(utf8_stream *stream, FILE *file)
{
    if (stream->n > 0)
        fputs("\xef\xbf\xbd", file);
    stream->n = 0;
}

void utf8_write(utf8_stream *stream, FILE *file, const char *bytes, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        unsigned char byte = (unsigned char)bytes[i];
        if (stream->n > 0 && !goes_on(stream->held, stream->n, byte))
            utf8_end(stream, file);
        stream->held[stream->n++] = byte;
        int length = length_of(stream->held[0]);
        if (length == 0)
            utf8_end(stream, file);
        else if (stream->n == length) {
            fwrite(stream->held, 1, (size_t)length, file);
            stream->n = 0;
        }
    }
}
