# ruff: noqa: RUF001 - signs that look alike are what some lines are about
"""Answers and golds of many kinds: one line each, `gold | answer`. None may ask the CAS."""

from __future__ import annotations

import pytest

from vlrl.grading import cas
from vlrl.grading.math_answer import Match, same_answer

SAME = r"""
1/2 | 0.5
\frac{1}{2} | 1/2
\frac{1}{2} | \frac12
\frac{1}{2} | ½
1\frac{1}{2} | 1½
1\frac{1}{2} | 1 1/2
1\frac{1}{2} | \frac{3}{2}
\frac{3}{2} | 1\frac12
-1\frac12 | -1.5
\frac{1}{3} | 0.\overline{3}
\frac{1}{3} | 0.\bar{3}
1234 | 1 234
1000000 | 1{,}000{,}000
1000000 | 10^{6}
0.75 | 75\%
75\% | 0.75
75\% | 75 percent
75\% | 75\text{ percent}
50\% | \frac12
5 | \$5
\$5 | 5
\$5 | 5 dollars
\$5 | \text{5 dollars}
\$1,250 | 1250
\$1.85 | 1.85\ \text{USD}
5 | $5
12\text{ cm} | 12cm
12\text{ cm} | 12 centimeters
12\text{ cm} | 12\,\text{cm}
12\text{ m} | 12 m
12\text{ m} | 12m
12\text{ cm}^2 | 12\text{ square cm}
12\text{ cm}^2 | 12 cm^2
12\text{ cm}^2 | 12\text{ cm²}
12\text{ m/s} | 12 m/s
12\text{ m/s} | 12\text{ meters per second}
60\text{ km/h} | 60 km/h
5\text{ apples} | 5 apples
5 | 5\text{ apples}
30^\circ | 30°
30^\circ | 30\text{ degrees}
30^{\circ} | 30 degrees
\sqrt{5} | sqrt(5)
\sqrt{5} | √(5)
2\sqrt{3} | \sqrt{12}
2\sqrt{3} | 2√3
\frac{\sqrt{2}}{2} | \frac{1}{\sqrt{2}}
\frac{1+\sqrt{5}}{2} | \frac12+\frac{\sqrt5}{2}
\frac{\pi}{4} | π/4
e^2 | e^{2}
e^2 | \exp(2)
\log_2 8 | 3
\log_{10} 2 | \lg 2
x=5 | 5
5 | 5=x
5 | x=5
5 | y=5
5 | n = 5
5 | f(x)=5
x=2,y=3 | x=2, y=3
x=2,y=3 | y=3, x=2
1,2 | 2,1
1,2 | \{1,2\}
1,2 | 1 and 2
1,2 | 1 \text{ and } 2
1,2 | x=1, x=2
1,2 | x=1 \text{ or } x=2
1,2 | x=1 or x=2
\{1,2\} | 1,2
\{1,2\} | \{2,1\}
\{1,2\} | \lbrace 1,2\rbrace
\{1,2\} | {1,2}
\pm 2 | 2,-2
\pm 2 | x=\pm 2
\pm 2 | ±2
\pm 2 | +2 or -2
\pm 2 | -2 and 2
\pm\sqrt{2} | \{-\sqrt2,\sqrt2\}
1\pm\sqrt{2} | 1+\sqrt2, 1-\sqrt2
\frac{1\pm\sqrt5}{2} | \{\frac{1+\sqrt5}{2},\frac{1-\sqrt5}{2}\}
(1,2) | (1.0, 2.0)
(1,2) | \langle 1,2\rangle
(0,1] | (0, 1]
(0,1] | 0<x\le 1
(0,1] | 0<x<=1
(0,1] | x\in(0,1]
[0,1) | \left[0,1\right)
(-\infty,3) | x<3
(-\infty,3) | (-inf,3)
(-\infty,3)\cup(3,\infty) | (3,\infty)\cup(-\infty,3)
(-\infty,3)\cup(3,\infty) | x<3 \text{ or } x>3
(-\infty,\infty) | \mathbb{R}
[1,2]\cup[3,4] | [1,2]∪[3,4]
x>3 | x > 3
x>3 | (3,\infty)
x>3 | 3 < x
x\ge 3 | x≥3
x\ge 3 | x \geq 3
x\ge 3 | x>=3
2<x<4 | 4>x>2
x^2+2x+1 | (x+1)^2
x^2+2x+1 | 1+2x+x^2
x^2+2x+1 | x²+2x+1
x^2+2x+1 | x^2 + 2*x + 1
x^2+2x+1 | x**2+2*x+1
y=2x+1 | 2x+1
y=2x+1 | y = 1+2x
y=2x+1 | 2x-y+1=0
2x-y+1=0 | 4x-2y+2=0
2x-y+1=0 | y=2x+1
x^2+y^2=1 | y^2+x^2=1
x^2+y^2=1 | x^2+y^2-1=0
\frac{x}{y} | x/y
\frac{1}{x+1} | (x+1)^{-1}
\sqrt{x} | x^{1/2}
\sqrt[3]{x} | x^{1/3}
\sin x | \sin(x)
\sin x | sin x
\sin x | \cos(\frac{\pi}{2}-x)
2\sin x\cos x | \sin 2x
\tan x | \frac{\sin x}{\cos x}
3+4i | 3 + 4 i
3+4i | 4i + 3
3+4i | 3+4\mathrm{i}
-i | -1i
\begin{pmatrix}1&2\\3&4\end{pmatrix} | \begin{bmatrix}1 & 2 \\ 3 & 4\end{bmatrix}
\begin{pmatrix}1&2\\3&4\end{pmatrix} | [[1,2],[3,4]]
10! | 3628800
\binom{5}{2} | {5 \choose 2}
5! | 120
120 | 5!
3:5 | 3:5
0.001 | 1e-3
0.001 | 1 \times 10^{-3}
6.02\times10^{23} | 6.02 × 10^23
6.02\times10^{23} | 6.02*10^23
5 | 5.000
5 | 10/2
5 | \frac{10}{2}
5 | \sqrt{25}
5 | 5^1
5 | (5)
5 | |5|
5 | |-5|
5 | -(-5)
5 | 5e0
5 | 5^\circ
5 | 500\%
5 | \lfloor 5.3 \rfloor
5 | \boxed{5}
\text{Friday} | Friday
\text{Friday} | friday
\text{(A)} | A
\text{(A)} | (A)
A | \text{A}
\text{A, C} | C, A
\text{even} | \text{Even}
\text{yes} | Yes
\text{no solution} | \text{No solution}
\emptyset | \varnothing
\emptyset | ∅
\infty | inf
\infty | +\infty
-\infty | -∞
1242_6 | 1242_{6}
9:24 | 9:24\text{ a.m.}
4x^2 | 4 x^{2}
xy | yx
xy | x\cdot y
2^{n} | 2^n
n! | n!
n(n+1)/2 | \frac{n(n+1)}{2}
\frac{n(n+1)}{2} | \frac{n^2+n}{2}
a_n=2n+1 | 2n+1
x_1+x_2 | x_2+x_1
\alpha+\beta | \beta+\alpha
|x| | \sqrt{x^2}
\lfloor x\rfloor | \lfloor x \rfloor
\overrightarrow{AB} | \vec{AB}
12\sqrt{3}\text{ cm}^2 | 12\sqrt3
12\sqrt{3}\text{ cm}^2 | 12\sqrt3 cm^2
\frac{5}{6}\text{ hours} | \frac56 h
2.50 | \$2.50
.5 | 0.5
-\frac{1}{2} | \frac{-1}{2}
-\frac{1}{2} | \frac{1}{-2}
-\frac{1}{2} | -0.5
0 | -0
0 | 0.0
10200_3 | 10200_{3}
100,200,300 | 100, 200, 300
1,234 | 1, 234
\tan^{-1}(1) | \frac{\pi}{4}
\arctan 2 | \tan^{-1} 2
2^{100000} | 2^{100000}
\frac{a}{b}+c | c+a/b
a/b/c | \frac{a}{bc}
1/2x | \frac{x}{2}
\frac{1}{2}x | x/2
AB=12 | 12
3.5 | 3\frac{1}{2}
3.5 | 3 1/2
5 | \frac{5}{1}
5 | 5/1
5 | \left(5\right)
5 | \,5\,
5 | \text{5}
5 | \mathbf{5}
5 | \mathrm{5}
5 | {5}
5 | 5\,
5 | 5\text{}
5 | \displaystyle 5
5 | 5€
€5 | 5
-5 | −5
-5 | - 5
-5 | (-5)
-5 | -5.0
x=-5 | -5
\text{Pa} | \text{pa}
90^\circ | 90º
2 | ∛8
(1,2) | (x,y)=(1,2)
(1,2) | (x, y) = (1, 2)
(1,2,3) | (a,b,c)=(1,2,3)
f^{-1}(x)=\frac{x-1}{2} | \frac{x-1}{2}
\frac{x-1}{2} | f^{-1}(x) = \frac{x-1}{2}
\mathrm{ln}\,2 | \ln 2
9:24 \text{ a.m.} | 9:24 a.m.
9:24 \text{ a.m.} | 9:24 AM
\begin{pmatrix}1&2\\3&4\end{pmatrix} | \left[\begin{array}{cc}1&2\\3&4\end{array}\right]
\begin{pmatrix}1&2\\3&4\end{pmatrix} | \left(\begin{array}{cc}1&2\\3&4\end{array}\right)
(-\infty,\infty) | ℝ
5 | \therefore x = 5
5 | \therefore 5
2i | \sqrt{-4}
\frac12 | \cos 60^\circ
\frac12 | \sin\frac{\pi}{6}
\ln\sqrt3 | \frac12\ln 3
2^{n+1} | 2\cdot2^n
3\times10^8 | 3×10⁸
3\times10^8\text{ m/s} | 3 \times 10^8 m/s
x+1 | \frac{x^2-1}{x-1}
\frac{3}{4} | 3/4 cup
5 | 5 USD
12\text{ cm}^3 | 12 cm³
\frac13 | 33\frac13\%
x^3-1 | (x-1)(x^2+x+1)
\frac{x}{2}+\frac{y}{3}=1 | 3x+2y=6
3x+2y>6 | 6<3x+2y
3x+2y>6 | -3x-2y<-6
3x+2y>6 | 6x+4y>12
x\ge0 | x\in[0,\infty)
a^2b | ba^2
2\cos^2 x-1 | \cos 2x
\sec x | 1/\cos x
10\% | 0.1
-\frac{3}{4} | -3/4
7 | 7.
7 | 07
(2,\infty) | (2, +\infty)
\sqrt{2} | \sqrt[2]{2}
\sqrt[3]{2} | 2^{1/3}
\sqrt{2} | 2^{0.5}
1000 | 1 \times 10^3
1000 | 10^3
1000 | 10 \times 10^2
20 | 20\text{ units}
20 | 20 sq units
20\pi | 20π
20\pi | \pi\cdot 20
\frac{\sqrt{3}}{3} | \tan 30^\circ
i | \sqrt{-1}
1+i | i+1
A=3,B=4 | B=4,A=3
\text{A and B} | A and B
\text{A and B} | A, B
5\frac{1}{3} | 5 1/3
5\frac{1}{3} | 5.\overline{3}
5\frac{1}{3} | \frac{16}{3}
0.1\overline{6} | \frac16
0.\overline{142857} | 1/7
4\pi r^2 | 4 \pi r^{2}
\frac{4}{3}\pi r^3 | (4/3)\pi r^3
x(x+1) | x^2+x
-x+1 | 1-x
2(l+w) | 2l+2w
\$4.50 | 4.5
\$4.50 | \$4.5
12:00 | 12:00
y=-3x+30 | y=30-3x
y=-3x+30 | y+3x=30
x=1 | 1=x
x^2+y^2+z^2=r^2 | r^2=x^2+y^2+z^2
\log_2 3 | \frac{\ln 3}{\ln 2}
\text{infinitely many} | infinitely many
\text{True} | true
"""
DIFFERENT = r"""
\pi | 3.14159
2\pi | 6.283185307179586
e^2 | 7.389
\ln 2 | \log 2
\log_{10} 2 | \log 2
5 | \text{Answer: } 5
x=2,y=3 | (2,3)
(2,3) | x=2, y=3
1,2 | (1,2)
\{1,2\} | \{1,2,3\}
\{1,2\} | [1,2]
1\pm\sqrt{2} | 1+\sqrt2
(1,2) | (2,1)
(0,1] | [0,1]
(-\infty,3)\cup(3,\infty) | x\ne 3
x>3 | y>3
x>3 | x<3
x^2+2x+1 | y^2+2y+1
2x+1 | 2t+1
y=2x+1 | x=\frac{y-1}{2}
\begin{pmatrix}1&2\\3&4\end{pmatrix} | \begin{pmatrix}1&2\\3&5\end{pmatrix}
\begin{pmatrix}1\\2\end{pmatrix} | (1,2)
\begin{pmatrix}1\\2\end{pmatrix} | \begin{pmatrix}1&2\end{pmatrix}
3:5 | \frac35
\frac35 | 3:5
12.5 | 12,5
5 | 4.9999999
5 | 5.0000001
5 | five
5 | 5 or 6
5 | 5, 6
5 | 5 \text{ or } 6
5 | 2+3
5 | 5 \pm 0
5 | 5+0
5 | 5 \cdot 1
5 | 5x
5 | [5]
5 | \{5\}
5 | --5
5 | 0x5
5 | 5_
5 | 5\%
5 | \approx 5
5 | x \approx 5
5 | 5 \approx 5
5 | > 5
5 | \ge 5
5 | 4 < x < 6
5 | [5,5]
5 | 5!
5 | 5\ldots
5 | 5...
5 | 1,5
5 | 5\\6
5 | 5\quad 6
5 | 5\cdot
5 | 5 \text{ (approximately)}
5 | 5 (not 6)
5 | not 5
5 | \neg 5
5 | \text{the answer is }5
5 | 5 = 5
5 | 5 = 2+3
5 | 2+3 = 5
5 | x=5=y
5 | 5\text{ or so}
5 | 5 if x
\emptyset | \{\emptyset\}
1242_6 | 1242
1242_6 | 1242_7
9:24 | 9:25
\frac{5}{6}\text{ hours} | 50 minutes
0 | \emptyset
\sin^{-1} x | \frac{1}{\sin x}
2^{100000} | 4^{50000}
k=8 | K=8
AB=12 | BA=12
5 \text{ cm} | 5 \text{ cm or } 6 \text{ cm}
\frac{2}{3} | 0.6666666666666667
\frac{2}{3} | 0.67
5 | 5 \checkmark
5 | 5^{\text{th}}
5 | 5th
€5 | $5
-5 | 5
2x | 2X
9:24 \text{ a.m.} | 9:24 pm
1 | 0.999...
\frac13 | 0.333...
3x+2y=6 | 3x+2y=7
3x+2y>6 | 3x+2y<6
10\% | 10
-\frac{3}{4} | \frac{3}{4}
(2,\infty) | [2,\infty)
1000 | 1k
20\pi | 62.83
A=3,B=4 | A=4,B=3
\$4.50 | 450 cents
x=1 | y=1
\log_2 3 | 1.585
e | 2.71828
\text{True} | false
"""


def lines(table: str) -> list[tuple[str, str]]:
    found = [line.split(" | ", 1) for line in table.strip().splitlines()]
    return [(gold, answer) for gold, answer in found]


@pytest.fixture(autouse=True)
def no_algebra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cas, "default_pool", lambda: pytest.fail("asked the CAS"))


@pytest.mark.parametrize(("gold", "answer"), lines(SAME))
def test_same(gold: str, answer: str) -> None:
    assert same_answer(gold, answer) is Match.SAME


@pytest.mark.parametrize(("gold", "answer"), lines(DIFFERENT))
def test_different(gold: str, answer: str) -> None:
    assert same_answer(gold, answer) is Match.DIFFERENT
