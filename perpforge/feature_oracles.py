"""The part of the page `docs/features.md` that says where other libraries count otherwise; tests hold it to theirs."""

ORACLES = """\
## Where other libraries count otherwise

**TA-Lib.** Every indicator that it has is compared with it on recorded 5m bars of three symbols, and agrees to 1e-6,
relative to the larger of the value and the feature's usual size (`tests/features/test_talib.py`). Where the two define
another number, ours is derived from its output: a distance is divided by its ATR, a slope is its momentum over five
bars, R² the square of its correlation with time, a volatility the root of its mean of squares, and what grows for ever
(OBV, accumulation) is its momentum over 20 bars as a part of the volume traded in them. What differs:

- *How averages begin.* TA-Lib begins an average with the mean of its first span, ours begins with the first bar, so the
  two come together with time. A warm-up is counted to 1e-4; 1e-6 takes longer, for these until the bar given:

  | feature | warm-up | 1e-6 from bar |
  |---|---|---|
  | `ema_9_distance`, `ema_9_slope` | 160 | 300 |
  | `ema_21_distance`, `ema_21_slope` | 160 | 400 |
  | `ema_50_distance`, `ema_50_slope` | 320 | 700 |
  | `ema_200_distance`, `ema_200_slope` | 1200 | 2000 |
  | `macd_line` | 200 | 400 |
  | `macd_signal`, `macd_histogram` | 240 | 400 |
  | `adx_14` | 220 | 400 |
  | `plus_di_14`, `minus_di_14` | 180 | 300 |
- *Chaikin's money flow* counts from bar 20; as a momentum over 20 bars TA-Lib's accumulation has it from bar 21.
- *MFI.* TA-Lib decides by the rounding of a sum whether an unchanged typical price rose or fell; compared in whole
  ticks, where nothing is rounded, the two are the same.
- *R².* TA-Lib's correlation loses digits on numbers that are large beside their spread, as a clock's are; it is given
  prices around 0 and a clock that is set back.

TA-Lib lacks `upper_wick_fraction`, `lower_wick_fraction`, `inside_bar`, `outside_bar`, `taker_imbalance`,
`bar_open_move`, `bar_low_move`, `bar_close_move` and `cusum_event`; those are held to their definitions.

**smart-money-concepts** (0.0.27) reads the future: it writes a swing at its own bar, a gap at its middle candle and a
break at the swing that will be broken. Its readings are moved to the bar that confirms them and compared on 5,000
recorded 5m bars of BTCUSDT and of LTCUSDT. Every difference falls under exactly one reason, by a rule that is checked
for it (`tests/features/test_smart_money_concepts.py`):

| what | reason | BTCUSDT | LTCUSDT |
|---|---|---|---|
| swings | agreed | 834 | 856 |
| | ours alone: not the farthest of its kind in a row | 113 | 89 |
| | ours alone: a bar that is a high as well | 13 | 9 |
| | theirs alone: beyond two older bars, not three | 71 | 64 |
| | theirs alone: equal to an older bar | 1 | 15 |
| gaps | agreed | 1070 | 934 |
| | theirs alone: less than a tenth of the usual range | 267 | 225 |
| when a gap is filled | agreed | 949 | 783 |
| | never by either | 26 | 20 |
| | theirs earlier: touched at its very edge | 12 | 54 |
| | theirs alone: after ours was given up | 83 | 77 |
| breaks | agreed | 301 | 283 |
| | ours alone: of a swing that only we have | 52 | 40 |
| | ours alone: the next swing was not farther | 16 | 14 |
| | ours alone: the turns before and after it were equal | 1 | 3 |
| | ours alone: price had left the level behind before it turned | 1 | 0 |
| | theirs alone: of a swing that only they have | 31 | 36 |
| | theirs alone: a newer swing had taken its place | 32 | 23 |
| | theirs at a close that equals the level, but not in float32 | 1 | 7 |
| what an agreed break is called | ours BOS, theirs BOS | 135 | 119 |
| | ours CHOCH, theirs CHOCH | 63 | 60 |
| | ours BOS, theirs CHOCH | 15 | 23 |
| | ours CHOCH, theirs BOS | 88 | 81 |

- *Swings.* It compares with two older bars, ours with three; it takes a high equal to an older one, ours the first of
  equals; a bar that is both a high and a low is only a high to it. Of swings of one kind in a row it keeps the
  farthest, which is known only afterwards: ours keeps each, as it was known then.
- *Gaps.* It has no least size and keeps a gap for ever, ours for 160 bars and among the newest four of its side. It
  calls a gap mitigated when its edge is touched, ours is filled when price is inside.
- *Breaks.* It wants the swings before and after in a certain order, which again is known only later; it keeps an older
  swing where ours has a newer one, rounds levels to float32, and drops a break when a later swing is broken by the same
  bar.
- *Names.* It calls a break by the order of four swings, ours by the break before it: against that one's direction it is
  a change of character.
"""
