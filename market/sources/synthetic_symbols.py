"""The symbols of the synthetic market: names, price levels, grids and temperaments."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

SECTORS = ("major", "layer1", "defi", "meme")


@dataclass(frozen=True)
class SymbolProfile:
    """What is fixed about one synthetic symbol.

    `tick` and `step` are the grids of price and quantity and `price` is the level it starts from;
    `volatility` is the standard deviation of a calm minute's return (a fraction); `market_share`
    and `sector_share` are the parts of the return's variance that come from the market and the
    sector; `turnover` is a calm minute's traded value; fundings come every `funding_hours`.
    """

    name: str
    price: float
    tick: float
    step: float
    volatility: float
    market_share: float
    sector_share: float
    sector: str
    turnover: float
    funding_hours: int


# name, price, tick, step, volatility (bps a minute), market share, sector, turnover (thousands a minute), funding hours
_KNOWN: tuple[tuple[str, float, float, float, float, float, str, float, int], ...] = (
    ("BTCUSDT", 91_350.0, 0.1, 0.001, 6.4, 0.80, "major", 9_000, 8),
    ("ETHUSDT", 3_140.0, 0.01, 0.001, 7.4, 0.72, "major", 6_500, 8),
    ("SOLUSDT", 134.5, 0.01, 0.01, 8.2, 0.62, "layer1", 2_600, 8),
    ("XRPUSDT", 2.084, 0.0001, 0.1, 7.9, 0.55, "major", 1_900, 8),
    ("BNBUSDT", 896.0, 0.01, 0.01, 6.8, 0.60, "major", 900, 8),
    ("ENAUSDT", 0.2361, 0.00001, 1.0, 9.8, 0.45, "defi", 420, 4),
    ("DOGEUSDT", 0.15020, 0.00001, 1.0, 9.0, 0.55, "meme", 1_100, 8),
    ("ADAUSDT", 0.39530, 0.00001, 1.0, 8.6, 0.58, "layer1", 520, 8),
    ("LINKUSDT", 13.355, 0.001, 0.01, 8.5, 0.55, "defi", 460, 8),
    ("AVAXUSDT", 13.942, 0.001, 0.1, 8.8, 0.58, "layer1", 410, 8),
    ("LTCUSDT", 82.14, 0.01, 0.001, 8.0, 0.50, "major", 300, 8),
    ("1000PEPEUSDT", 0.0068512, 0.0000001, 1.0, 9.7, 0.45, "meme", 800, 8),
    ("SUIUSDT", 1.7430, 0.0001, 0.1, 9.4, 0.52, "layer1", 700, 8),
    ("NEARUSDT", 1.7122, 0.0001, 0.1, 9.2, 0.52, "layer1", 240, 8),
    ("DOTUSDT", 2.1455, 0.0001, 0.1, 8.8, 0.55, "layer1", 230, 8),
    ("AAVEUSDT", 166.30, 0.01, 0.01, 9.0, 0.50, "defi", 260, 8),
    ("UNIUSDT", 5.9320, 0.0001, 0.1, 9.1, 0.48, "defi", 220, 8),
    ("1000SHIBUSDT", 0.0092150, 0.0000001, 1.0, 8.9, 0.52, "meme", 260, 8),
    ("WIFUSDT", 0.40170, 0.00001, 0.1, 10.0, 0.40, "meme", 210, 4),
    ("TRXUSDT", 0.29441, 0.00001, 1.0, 5.8, 0.35, "major", 140, 8),
    ("BCHUSDT", 642.35, 0.01, 0.001, 8.0, 0.45, "major", 190, 8),
    ("APTUSDT", 1.9044, 0.0001, 0.1, 9.2, 0.50, "layer1", 150, 8),
    ("ARBUSDT", 0.21520, 0.00001, 0.1, 9.3, 0.50, "layer1", 170, 8),
    ("OPUSDT", 0.31210, 0.00001, 0.1, 9.6, 0.48, "layer1", 140, 8),
)

# Further names, in order; their profiles are derived from the name.
_MORE = """
FIL ETC XLM ATOM HBAR INJ TIA SEI LDO CRV ALGO VET ICP RUNE GRT SAND MANA AXS GALA FET STX IMX WLD ORDI JUP PYTH STRK
1000BONK 1000FLOKI ONDO PENDLE ENS DYDX SNX COMP SUSHI CAKE GMX MASK APE CHZ ENJ THETA EGLD KAVA FLOW MINA ROSE ZIL ONE
IOTA XTZ NEO QTUM DASH ZEC XMR KSM WAVES ZRX BAT KNC BAND STORJ SKL ANKR CELO AR LPT API3 WOO JASMY BLUR ID SSV CFX ACH
HOOK MAGIC HIGH ASTR PERP JOE HFT EDU UMA ARKM CYBER BIGTIME BSV GAS POLYX TOKEN ILV KAS BEAMX SUPER JTO AUCTION ACE
MOVR TWT XAI MANTA ALT ZETA DYM OM PIXEL PORTAL TON AXL METIS AEVO VANRY BOME ETHFI W TNSR SAGA TAO REZ BB NOT TURBO IO
ZK MEW LISTA ZRO RENDER BANANA G SYN BRETT POPCAT SUN DOGS POL NEIRO EIGEN SCR GOAT MOODENG SAFE COW GRASS DRIFT SWELL
PNUT ACT HIPPO THE MORPHO CHILLGUY KAIA AERO ACX ORCA MOVE VIRTUAL SPX ME AVA PENGU USUAL FARTCOIN HIVE BIO COOKIE SONIC
S TRUMP ANIME BERA LAYER IP KAITO RED
"""


def names(count: int) -> tuple[str, ...]:
    """The first `count` symbols, BTCUSDT first; the list never ends.

    >>> names(3)
    ('BTCUSDT', 'ETHUSDT', 'SOLUSDT')
    """
    known = [row[0] for row in _KNOWN] + [f"{base}USDT" for base in _MORE.split()]
    known += [f"SYN{index:04d}USDT" for index in range(len(known), count)]
    return tuple(known[:count])


def profile(name: str) -> SymbolProfile:
    """The profile of any name: the listed one, else one derived from the name alone.

    >>> profile("BTCUSDT").tick
    0.1
    """
    for row in _KNOWN:
        if row[0] == name:
            _, price, tick, step, bps, share, sector, thousands, hours = row
            return SymbolProfile(
                name, price, tick, step, bps * 1e-4, share, (1 - share) * 0.3, sector, thousands * 1e3, hours
            )
    digest = hashlib.sha256(name.encode()).digest()
    level, calm, share, size = (digest[i] / 255 for i in range(4))
    decade = int(level * 4) - 2
    price = round(10.0**decade * (1 + 8 * calm), 2 - decade)
    return SymbolProfile(
        name=name,
        price=price,
        tick=round(10.0 ** (decade - 5), 5 - decade),
        step=1.0 if price < 1 else 0.1 if price < 20 else 0.01,
        volatility=(7.5 + 2.5 * calm) * 1e-4,
        market_share=0.35 + 0.2 * share,
        sector_share=0.15,
        sector=SECTORS[1 + digest[4] % 3],
        turnover=3e4 * 10**size,
        funding_hours=4 if digest[5] < 64 else 8,
    )
