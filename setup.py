"""The metadata of smtpfw. ``pyproject.toml`` names the build backend and the tools' settings, nothing else."""

from pathlib import Path

from setuptools import find_packages, setup

README = Path(__file__).with_name("README.md")
TEST = ["pytest", "hypothesis", "aiosmtpd", "aiosmtplib", "scramp>=1.5"]

setup(
    name="smtpfw",
    version="0.1.0",
    description="An SMTP and LMTP framework for Twisted: servers and clients whose behaviour is yours to plug in",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    author="the smtpfw authors",
    license="MIT",
    python_requires=">=3.11",
    install_requires=["twisted>=26.10", "zope.interface", "pyopenssl>=25.3", "service-identity"],
    extras_require={
        "test": TEST,
        # mypy-zope is a plugin into mypy's insides and names the versions that it fits.
        "dev": [*TEST, "ruff", "mypy<2.5", "mypy-zope", "build"],
    },
    # twisted.plugin looks into the folders of sys.path. This line makes an editable install put the checkout there,
    # instead of an import hook that twisted.plugin never asks; without it, twistd does not find the plugin.
    package_dir={"": "."},
    packages=[*find_packages(include=["smtpfw", "smtpfw.*"]), "twisted.plugins"],
    package_data={"smtpfw": ["py.typed"]},
    zip_safe=False,
    keywords=["smtp", "lmtp", "esmtp", "mail", "twisted"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Framework :: Twisted",
        "Intended Audience :: Developers",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Communications :: Email :: Mail Transport Agents",
        "Topic :: Software Development :: Libraries :: Python Modules",
        "Typing :: Typed",
    ],
)
